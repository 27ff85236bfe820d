"""Proof that every inserted block runs: it was executed, its output reaches the network's, and it can learn.

A block that is declared but never called, called on a value nobody reads, or cut off from the gradient is the usual way
in which hand-made surgery fails silently. One forward and one backward pass tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sesurgery.diagnostics import Diagnostic, SesurgeryError

_DRAWS = 32
_SIDE = 64


@dataclass
class _Seen:
    """What a hook saw of one block."""

    calls: int = 0
    output: Tensor | None = None
    problem: str | None = None


def prove(network: nn.Module, blocks: Mapping[str, str], shape: tuple[int, int, int]) -> None:
    """Raise SE404 (or SE305 for a changed shape) naming each site whose block does not run; changes nothing.

    `blocks` maps site keys to module paths, `shape` is the input's (channels, height, width).
    """
    if not blocks:
        return
    generator = torch.Generator().manual_seed(0)
    mistakes = []
    with _awake(network, generator):
        try:
            # Who reads whom does not depend on the resolution, and a small image costs a tenth.
            seen, gradients = _run(network, blocks, _smaller(shape), generator)
        except Exception:
            if _smaller(shape) == shape:
                raise
            seen, gradients = _run(network, blocks, shape, generator)
        for key, item in seen.items():
            code, problem = _judge(item, gradients.get(key), network.get_submodule(blocks[key]), generator)
            if problem:
                mistakes.append(Diagnostic(code, f"{key}: {problem}", hint=_HINTS[code]))
    if mistakes:
        raise SesurgeryError(mistakes)


def _smaller(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return (shape[0], min(shape[1], _SIDE), min(shape[2], _SIDE))


def _run(
    network: nn.Module, blocks: Mapping[str, str], shape: tuple[int, int, int], generator: torch.Generator
) -> tuple[dict[str, _Seen], dict[str, Tensor | None]]:
    """What the hooks saw in one forward pass, and the gradient at each block's output."""
    seen = {key: _Seen() for key in blocks}
    hooks = [network.get_submodule(path).register_forward_hook(_watch(seen[key])) for key, path in blocks.items()]
    like = next((part for part in network.parameters() if part.is_floating_point()), torch.empty(0))
    # A gradient on the input reaches through a network whose own parameters are all frozen.
    image = torch.randn(1, *shape, generator=generator).to(like).requires_grad_().clone()
    try:
        with torch.enable_grad():
            outputs = _tensors(network(image))
            loss = sum((out * torch.randn(out.shape, generator=generator).to(out)).sum() for out in outputs)
            reached = {key: item.output for key, item in seen.items() if item.output is not None}
            reached = {key: value for key, value in reached.items() if value.requires_grad}
            if not isinstance(loss, Tensor) or not reached:
                return seen, {}
            return seen, dict(
                zip(reached, torch.autograd.grad(loss, [*reached.values()], allow_unused=True), strict=True)
            )
    except Exception:
        # A block that broke its contract breaks what follows it: say that, not what followed.
        if not any(item.problem for item in seen.values()):
            raise
        return seen, {}
    finally:
        for hook in hooks:
            hook.remove()


_HINTS = {
    "SE305": "a block maps [N, C, H, W] to the same shape",
    "SE404": "nothing was changed; choose another placement, or report this network",
}


def _judge(
    item: _Seen, gradient: Tensor | None, block: nn.Module, generator: torch.Generator
) -> tuple[str, str | None]:
    if item.problem:
        return "SE305", item.problem
    if item.calls == 0:
        return "SE404", "the block is never executed"
    if item.output is None or gradient is None or not gradient.any():
        return "SE404", "the block's output does not reach the network's output"
    if not torch.isfinite(item.output).all() or not torch.isfinite(gradient).all():
        return "SE404", "the block's output or its gradient is not finite"
    if not _learns(block, item.output.detach(), generator):
        return "SE404", "no parameter of the block receives a gradient"
    return "SE404", None


def _learns(block: nn.Module, like: Tensor, generator: torch.Generator) -> bool:
    """Whether some input makes a gradient reach the block's parameters.

    A narrow bottleneck is off for half of all inputs (its ReLU is zero), so several are drawn.
    """
    parameters = [part for part in block.parameters() if part.requires_grad]
    if not parameters:
        return True
    size = (min(8, like.shape[2]), min(8, like.shape[3]))
    for _ in range(_DRAWS):
        offset = torch.randn(1, like.shape[1], 1, 1, generator=generator)
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
def _awake(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """The network in eval mode, with some value in parameters that are zero; afterwards it is as it was.

    A residual's last norm or an identity start is zero, and the wiring that is proved here hides behind it.
    """
    modes = [(module, module.training) for module in network.modules()]
    zeros = [part for part in network.parameters() if part.is_floating_point() and not part.any()]
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
            module.training = mode


def _watch(item: _Seen) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        item.calls += 1
        if not isinstance(output, Tensor):
            item.problem = f"the block returns {type(output).__name__}, not a tensor"
        elif output.shape != inputs[0].shape:
            item.problem = f"the block changes the shape {tuple(inputs[0].shape)} to {tuple(output.shape)}"
        else:
            item.output = output

    return hook


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in _tensors(value)]
    if isinstance(output, tuple | list):
        return [tensor for value in output for tensor in _tensors(value)]
    return []
