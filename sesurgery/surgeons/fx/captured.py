"""The arguments that the parts of a network are called with while it runs on an example."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sesurgery.diagnostics import SesurgeryError, fail, first_line, suggest
from sesurgery.surgeons.fx.causes import what_to_do
from sesurgery.surgeons.fx.copying import twin
from sesurgery.surgeons.fx.eager import eagerly
from sesurgery.surgeons.fx.inputs import BATCHES, Given, Inputs, is_list_of_images, mapped

CallsSeen = dict[str, list[Given]]


@dataclass(frozen=True)
class Captured:
    """A part's first call, for either batch, and how often it is called in one run."""

    inputs: Inputs
    times: int


def capture(network: nn.Module, inputs: Inputs) -> dict[str, Captured]:
    """Every part that is called, in the order of the first calls; raises SE304 if the network does not run."""
    two, three = (_seen(network, given) for given in (inputs.two, inputs.three))
    return {
        path: Captured(Inputs(calls[0], three[path][0]), len(calls)) for path, calls in two.items() if path in three
    }


def example_inputs(example: object) -> Inputs:
    """Two calls like the example's: a tensor, a tuple of arguments, a mapping of names, or a list of images.

    The batch comes first.
    """

    def batch(size: int) -> Given:
        def sized(value: Any) -> Any:
            """A tensor with that batch size; images in a list have no batch and stay as they are."""
            if isinstance(value, Tensor) and value.dim():
                return value[:1].expand(size, *value.shape[1:]).clone()
            return value

        if isinstance(example, Tensor):
            return Given((sized(example),))
        if is_list_of_images(example):
            return Given((example,))
        if isinstance(example, Mapping):
            return Given((), {str(name): sized(value) for name, value in example.items()})
        return Given(tuple(map(sized, cast("tuple[object, ...]", example))))

    return Inputs(*map(batch, BATCHES))


def part_inputs(network: nn.Module, inputs: Inputs, path: str) -> Inputs:
    """What the network calls a part with; raises SE306 if it does not, or more than once."""
    seen = capture(network, inputs)
    if path not in seen:
        text = f"the model does not call a part {path!r} on this example"
        raise fail("SE306", text, suggest(path, seen))
    if seen[path].times > 1:
        raise fail("SE306", f"the model calls {path!r} {seen[path].times} times", "name a part that is called once")
    return seen[path].inputs


def called_with(network: nn.Module, given: Given, path: str) -> Given | None:
    """What a network calls a part with at first, as far as it runs on an example; it is stopped there."""
    copied = twin(network).eval()
    found: CallsSeen = {}

    def stop(*call: Any) -> None:
        _note(found, path)(*call)
        raise _Reached

    with torch.no_grad(), torch.random.fork_rng(), _quiet(), contextlib.suppress(Exception, _Reached):
        copied.get_submodule(path).register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
        copied(*mapped(given.args, _filled), **mapped(dict(given.kwargs or {}), _filled))
    return found[path][0] if path in found else None


class _Reached(BaseException):
    """Stops a run that has told what was asked."""


def run_whole(network: nn.Module, inputs: Inputs) -> None:
    """Raise SE404 if a network with a changed part does not run as a whole."""
    try:
        _seen(network, inputs.two)
    except SesurgeryError as error:
        text = f"with its part changed the whole does not run: {error.diagnostics[0].message}"
        raise fail("SE404", text, "insert the blocks into another part") from error


def _seen(network: nn.Module, given: Given) -> CallsSeen:
    copied = twin(network)
    found: CallsSeen = {}
    hooks = [
        module.register_forward_pre_hook(_note(found, path), with_kwargs=True, prepend=True)
        for path, module in copied.named_modules()
        # A scripted module takes no hooks.
        if path and not isinstance(module, torch.jit.ScriptModule)
    ]
    copied.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(), _quiet(), eagerly(copied):
            copied(*mapped(given.args, _filled), **mapped(dict(given.kwargs or {}), _filled))
    except Exception as error:
        raise fail(
            "SE304", f"the network does not run on this input: {first_line(error)}", what_to_do(error)
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _note(found: CallsSeen, path: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.setdefault(path, []).append(Given(mapped(args, _shell), mapped(kwargs, _shell)))

    return hook


def _shell(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type, without values."""
    return torch.empty_like(tensor)


def _filled(tensor: Tensor) -> Tensor:
    """Random values for a map; a box, a factor or another small argument may have to be what it is."""
    return torch.randn_like(tensor) if tensor.is_floating_point() and tensor.dim() > 2 else tensor.clone()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
