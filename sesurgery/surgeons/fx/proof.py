"""Proof that every inserted block runs: it was executed, its output reaches the network's, and it can learn.

A block that is declared but never called, called on a value nobody reads, or cut off from the gradient is the usual way
in which hand-made surgery fails silently. One forward and one backward pass tell.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sesurgery.diagnostics import Diagnostic, SesurgeryError
from sesurgery.surgeons.fx.changed import Changed
from sesurgery.surgeons.fx.copying import buffers_kept
from sesurgery.surgeons.fx.inputs import Given, mapped, tensors

_DRAWS = 32
_SIDES = (16, 64)
ANOTHER_PLACEMENT = "nothing was changed; choose another placement, or "
"""What every hint about a block that does not run begins with."""


@dataclass(frozen=True)
class _Sample:
    """The arguments of one call, and the generator for further random values."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    generator: torch.Generator


@dataclass
class _Observed:
    """What the forward hook of one block recorded."""

    calls: int = 0
    planned: int = 0
    """The calls of the graphs that have the block, each with as many of it."""
    output: Tensor | None = None
    problem: str | None = None
    gradient: Tensor | None = None
    learns: bool = False
    """Whether a parameter received a gradient in this very pass."""


def prove(network: nn.Module, blocks: Mapping[str, str], given: Given) -> None:
    """Raise SE404 (or SE305 for a changed shape) naming each site whose block does not run; changes nothing.

    `blocks` maps site keys to module paths, `given` is what the network is called with.
    """
    if not blocks:
        return
    generator = torch.Generator().manual_seed(0)
    with _without_zeros(network, generator):
        mistakes = _at_some_size(network, blocks, given, generator)
        if not mistakes:
            return
        # In a fresh deep network values may vanish in evaluation, as its norms do not normalise yet.
        with buffers_kept(network), torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
            network.train()
            if not _at_some_size(network, blocks, given, generator):
                return
    raise SesurgeryError(mistakes)


def _at_some_size(
    network: nn.Module, blocks: Mapping[str, str], given: Given, generator: torch.Generator
) -> list[Diagnostic]:
    """The errors of the blocks at the size with the fewest, trying small sizes first."""
    for side in (*_SIDES, 0):
        try:
            mistakes = _mistakes(network, blocks, _sample(given, side, generator, 2 if network.training else 1))
        except Exception:
            if side == 0:
                raise
            continue
        if not mistakes:
            return []
    return mistakes


def _sample(given: Given, side: int, generator: torch.Generator, batch: int) -> _Sample:
    """A few random samples of what the network is called with, small at first, of the real size where `side` is 0.

    Who reads whom does not depend on the resolution, and a small image costs a tenth. A failure on it may be due to its
    size (a norm over a map of one pixel), so only the real size counts.
    """

    def draw(tensor: Tensor) -> Tensor:
        shape = [batch, *tensor.shape[1:]] if tensor.dim() else []
        if side and len(shape) > 3:
            shape[2:] = [min(side, size) for size in shape[2:]]
        if not tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        # A gradient on the input reaches through a network whose own parameters are all frozen.
        return torch.randn(shape, generator=generator).to(tensor).requires_grad_().clone()

    return _Sample(mapped(given.args, draw), mapped(dict(given.kwargs or {}), draw), generator)


def _mistakes(network: nn.Module, blocks: Mapping[str, str], sample: _Sample) -> list[Diagnostic]:
    """The errors of the blocks after one forward and one backward pass."""
    found = []
    for key, item in _run(network, blocks, sample).items():
        code, problem = _judge(item, network.get_submodule(blocks[key]), sample.generator)
        if problem:
            found.append(Diagnostic(code, f"{key}: {problem}", hint=_HINTS[code], site=key))
    return found


def _run(network: nn.Module, blocks: Mapping[str, str], sample: _Sample) -> dict[str, _Observed]:
    """What the hooks saw in one forward pass, and the gradients at each block's output and of its parameters."""
    seen = {key: _Observed() for key in blocks}
    hooks = [network.get_submodule(path).register_forward_hook(_watch(seen[key])) for key, path in blocks.items()]
    hooks += _count_planned(network, blocks, seen)
    try:
        with torch.enable_grad():
            outputs = [*tensors(network(*sample.args, **sample.kwargs))]
            scales = [torch.randn(out.shape, generator=sample.generator).to(out) for out in outputs]
            loss = sum((out * scale).sum() for out, scale in zip(outputs, scales, strict=True) if _can_learn(out))
            if isinstance(loss, Tensor):
                _differentiate(loss, seen, {key: _learnable(network.get_submodule(blocks[key])) for key in blocks})
    except Exception:
        # A block that broke its contract breaks what follows it: say that, not what followed.
        if not any(item.problem for item in seen.values()):
            raise
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _count_planned(
    network: nn.Module, blocks: Mapping[str, str], seen: Mapping[str, _Observed]
) -> list[RemovableHandle]:
    """Hooks that count how often each block is to run."""
    keys = {id(network.get_submodule(path)): key for key, path in blocks.items()}
    hooks = []
    for module in network.modules():
        if not isinstance(module, Changed):
            continue
        own: Counter[str] = Counter()
        for graph in module.sesurgery_graphs:
            targets = [str(node.target) for node in graph.nodes if node.op == "call_module"]
            found = (keys.get(id(module.get_submodule(target))) for target in targets)
            own |= Counter(key for key in found if key is not None)
        if own:
            hooks.append(module.register_forward_pre_hook(partial(_add, seen, own)))
    return hooks


def _add(seen: Mapping[str, _Observed], own: Counter[str], *_: object) -> None:
    for key, count in own.items():
        seen[key].planned += count


def _can_learn(output: Tensor) -> bool:
    return output.is_floating_point() and output.requires_grad


def _differentiate(loss: Tensor, seen: Mapping[str, _Observed], parameters: Mapping[str, list[nn.Parameter]]) -> None:
    """Record the gradients of all blocks from one backward pass."""
    reached = {key: item.output for key, item in seen.items() if item.output is not None and item.output.requires_grad}
    if not reached:
        return
    own = [(key, parameter) for key in reached for parameter in parameters[key]]
    wanted = [*reached.values(), *(parameter for _, parameter in own)]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    for key, gradient in zip(reached, gradients, strict=False):
        seen[key].gradient = gradient
    for (key, _), gradient in zip(own, gradients[len(reached) :], strict=True):
        seen[key].learns |= gradient is not None and bool(gradient.any())


_HINTS = {
    "SE305": "a block maps [N, C, H, W] to the same shape",
    "SE404": f"{ANOTHER_PLACEMENT}report this network",
}


def _judge(item: _Observed, block: nn.Module, generator: torch.Generator) -> tuple[str, str | None]:
    if item.problem:
        return "SE305", item.problem
    if item.calls == 0:
        return "SE404", "the block is never executed"
    # A graph that is called by its forward alone is not counted.
    if item.calls > item.planned > 0:
        text = f"the block runs {item.calls} times and was put in to run {item.planned}"
        return "SE404", f"{text}: a forward that is not part of the plan calls it too"
    if item.output is None or item.gradient is None or not item.gradient.any():
        return "SE404", "the block's output does not reach the network's output"
    if not torch.isfinite(item.output).all() or not torch.isfinite(item.gradient).all():
        return "SE404", "the block's output or its gradient is not finite"
    if not item.learns and not _learns(block, item.output.detach(), generator):
        return "SE404", "no parameter of the block receives a gradient"
    return "SE404", None


def _learnable(block: nn.Module) -> list[nn.Parameter]:
    return [part for part in block.parameters() if part.requires_grad]


def _learns(block: nn.Module, like: Tensor, generator: torch.Generator) -> bool:
    """Whether some input makes a gradient reach the block's parameters.

    A narrow bottleneck is off for half of all inputs (its ReLU is zero), so several are drawn.
    """
    parameters = _learnable(block)
    if not parameters:
        return True
    size = [min(8, side) for side in like.shape[2:]]
    for _ in range(_DRAWS):
        offset = torch.randn(1, like.shape[1], *(1 for _ in size), generator=generator)
        value = (torch.randn(1, like.shape[1], *size, generator=generator) + offset).to(like)
        with torch.enable_grad():
            out = block(value)
            target = (out * torch.randn(out.shape, generator=generator).to(out)).sum()
            if not target.requires_grad:
                return False
            gradients = torch.autograd.grad(target, parameters, allow_unused=True)
        if any(part is not None and bool(part.any()) for part in gradients):
            return True
    return False


@contextlib.contextmanager
def _without_zeros(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """The network in eval mode, with some value in parameters that are zero; afterwards it is as it was.

    A residual's last norm or an identity start is zero, and the wiring that is proved here hides behind it.
    """
    modes = [(module, module.training) for module in network.modules()]
    zeros = [part for part in network.parameters() if part.is_floating_point() and _is_zero(part)]
    try:
        network.eval()
        with torch.no_grad():
            for part in zeros:
                part.copy_(0.1 * torch.randn(part.shape, generator=generator))
        yield
    finally:
        with torch.no_grad():
            for part in zeros:
                part.zero_()
        for module, mode in modes:
            if module.training != mode:
                module.training = mode


def _is_zero(tensor: Tensor) -> bool:
    # The first value decides almost all cases.
    if tensor.numel() and tensor[(0,) * tensor.dim()].item() != 0:
        return False
    return not tensor.any()


def _watch(item: _Observed) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        item.calls += 1
        if not isinstance(output, Tensor):
            item.problem = f"the block returns {type(output).__name__}, not a tensor"
        elif output.shape != inputs[0].shape:
            item.problem = f"the block changes the shape {tuple(inputs[0].shape)} to {tuple(output.shape)}"
        else:
            item.output = output

    return hook
