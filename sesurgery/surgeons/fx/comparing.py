"""A traced forward is compared with the original one before anything is put into it.

Tracing runs a forward once with symbols, and what a forward asks of them may have another answer than for values. So
the network runs on a small random batch, in evaluation and in seeded training, and wherever a module is called whose
forward a graph will stand in for, the graph gets the same arguments, random numbers and buffers.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sesurgery.diagnostics import Diagnostic, fail, first_line
from sesurgery.surgeons.fx import gradients
from sesurgery.surgeons.fx.causes import what_to_do
from sesurgery.surgeons.fx.copying import buffers_kept
from sesurgery.surgeons.fx.inputs import Given, mapped, tensors
from sesurgery.surgeons.fx.remembering import Memory

NOT_IN_TRAINING = (
    "in training mode the network does not run on random input ({}): traced forwards were compared with the original "
    "ones in evaluation mode alone"
)
_SMALL = 32
_TOLERANCE = 1e-4
"""Relative to the largest value: equal operations in equal order agree exactly on most machines."""


@dataclass(frozen=True)
class Twin:
    """A module of the network and what will run in its place, a function a mode (eval, train)."""

    path: str
    module: nn.Module
    runs: tuple[Callable[..., Any], ...]


@dataclass(frozen=True)
class Difference:
    """A module in whose place another function would run, and the SE403 that says so."""

    path: str
    said: Diagnostic


def compare(network: nn.Module, twins: Sequence[Twin], given: Given, tell: Callable[[str], object]) -> list[Difference]:
    """Every twin that is another function, in the first mode with such a twin; the network is as before afterwards.

    A small image is tried first. A difference there may be due to its size, so only the real size counts. Where the
    network does not run in training, `tell` is called with a text that says so.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        return _compare(network, twins, given, False, tell) or _compare(network, twins, given, True, tell)
    finally:
        for module, mode in modes:
            module.__dict__["training"] = mode


def _compare(
    network: nn.Module, twins: Sequence[Twin], given: Given, training: bool, tell: Callable[[str], object]
) -> list[Difference]:
    for module in network.modules():
        module.__dict__["training"] = training
    for size in dict.fromkeys((_SMALL, 0)):
        last = size == 0
        try:
            with _randomness_kept():
                found = _run(network, twins, _sample(given, size), training, careful=False)
                if found is None:
                    found = _run(network, twins, _sample(given, size), training, careful=True)
        except Exception as error:
            if not last:
                continue
            if training:
                # A network that needs more than images in training cannot be compared in that mode.
                tell(NOT_IN_TRAINING.format(first_line(error)))
                return []
            raise fail(
                "SE304", f"the network does not run on this input: {first_line(error)}", what_to_do(error)
            ) from error
        if not found:
            return []
    return found or []


def _run(
    network: nn.Module, twins: Sequence[Twin], sample: Given, training: bool, *, careful: bool
) -> list[Difference] | None:
    """The differences in one run, or None where only a careful one can tell.

    What a module draws and what it writes into its buffers is put back for its twin. Most modules draw nothing, and
    their buffers are as they were when the run began: a run that is not careful takes that for granted, has layers
    compute but once on the same values, and is None where it was wrong, or where it found a difference.
    """
    hooks = []
    with buffers_kept(network) as kept:
        run = _Run(training, careful, {id(tensor): (tensor, value) for tensor, value in kept})
        for twin in twins:
            watch = _Watch(twin, run)
            hooks.append(twin.module.register_forward_pre_hook(watch.before, with_kwargs=True))
            hooks.append(twin.module.register_forward_hook(watch.after, with_kwargs=True, prepend=True))
        try:
            torch.manual_seed(0)
            state = _random_state()
            with torch.set_grad_enabled(training), warnings.catch_warnings(), run.memory.of(_within(twins, careful)):
                warnings.simplefilter("ignore")
                network(*sample.args, **(sample.kwargs or {}))
        finally:
            for hook in hooks:
                hook.remove()
    if not careful and (run.unsure or run.mistakes or not _is_same_state(state, _random_state())):
        return None
    return run.mistakes


@dataclass
class _Run:
    """What the watches of one run share."""

    training: bool
    careful: bool
    buffers: dict[int, tuple[Tensor, Tensor]]
    """Every buffer with its value when the run began."""
    mistakes: list[Difference] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    depth: int = 0
    """How many watched modules are running, one within the other."""
    unsure: bool = False
    busy: bool = False
    """Whether a twin runs: what it calls is watched where the module calls it."""


class _Watch:
    """Runs a twin beside its module."""

    def __init__(self, twin: Twin, run: _Run) -> None:
        self.twin = twin
        self.run = run
        found = [run.buffers.get(id(tensor)) for tensor in twin.module.buffers()]
        self.buffers = [item for item in found if item is not None]

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.run.busy:
            return
        self.run.depth += 1
        self.run.memory.learn(True)
        self.given = Given(mapped(args, _copy), mapped(kwargs, _copy))
        # Before it runs: a forward may write into what it is given, which then is another value to autograd.
        self.inputs = gradients.edges(tensors((args, kwargs))) if torch.is_grad_enabled() else {}
        self.inputs |= gradients.edges(tensors((self.given.args, self.given.kwargs))) if self.inputs else {}
        if self.run.careful:
            self.values = [(tensor, tensor.clone()) for tensor in module.buffers()]
            self.state = _random_state()
        else:
            self.run.unsure |= not all(starmap(_is_same, self.buffers))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        if self.run.busy:
            return
        if not self.run.careful:
            _restore(self.buffers)
            self._compare(module, output)
            self.run.depth -= 1
            self.run.memory.learn(self.run.depth > 0)
            return
        state, values = _random_state(), [(tensor, tensor.clone()) for tensor in module.buffers()]
        _set_random_state(self.state)
        _restore(self.values)
        try:
            self._compare(module, output)
        finally:
            _set_random_state(state)
            _restore(values)

    def _compare(self, module: nn.Module, output: object) -> None:
        run = self.twin.runs[self.run.training if len(self.twin.runs) > 1 else 0]
        self.run.busy = True
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled()), self.run.memory.serving():
                other = run(module, *self.given.args, **(self.given.kwargs or {}))
            problem = _difference(output, other) or self._other_gradients(module, output, other)
        except Exception as error:
            problem = f"it fails: {first_line(error)}"
        finally:
            self.run.busy = False
        if problem:
            self.run.mistakes.append(Difference(self.twin.path, self._diagnostic(module, problem)))

    def _other_gradients(self, module: nn.Module, output: object, other: object) -> str | None:
        """How what a gradient reaches differs, in outputs that are equal; nothing reaches anything in evaluation."""
        pairs = zip(tensors(output), tensors(other), strict=True)
        found = (gradients.difference(one, two, self.inputs, module) for one, two in pairs)
        return next(filter(None, found), None) if self.run.training else None

    def _diagnostic(self, module: nn.Module, problem: str) -> Diagnostic:
        name, mode = type(module).__name__, "training" if self.run.training else "evaluation"
        text = f"{name}.forward ({self.twin.path or 'the network itself'}) is another function when traced: "
        hint = "exclude it with 'except', or rewrite its forward so that control flow does not depend on tensor values"
        return Diagnostic("SE403", f"{text}in {mode} {problem}", hint=hint)


def _within(twins: Iterable[Twin], careful: bool) -> Iterable[nn.Module]:
    """The modules that are called once by a module and once more by its graph; a careful run has each compute."""
    return () if careful else {module: None for twin in twins for module in twin.module.modules()}


def _difference(output: object, other: object) -> str | None:
    """How two outputs differ, or None."""
    if type(output) is not type(other):
        return f"it gives {type(other).__name__}, not {type(output).__name__}"
    ours, theirs = [*tensors(output)], [*tensors(other)]
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return "its outputs have other shapes"
    for one, two in zip(ours, theirs, strict=True):
        if one.dtype != two.dtype:
            return f"its output is {two.dtype}, not {one.dtype}"
        if one.requires_grad != two.requires_grad:
            return f"its output has {'a' if two.requires_grad else 'no'} gradient"
        if torch.equal(one, two):
            continue
        first, second = (tensor.detach().to(torch.float64) for tensor in (one, two))
        gap, scale = (first - second).abs().nan_to_num(), first.abs().nan_to_num()
        if (first.isnan() != second.isnan()).any() or gap.max() > _TOLERANCE * scale.max():
            return f"its output is off by {float(gap.max()):.3g} where the largest value is {float(scale.max()):.3g}"
    return None


def _copy(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    # Not a leaf of the gradient: a forward may write into what it is given.
    return copied.requires_grad_().clone() if tensor.requires_grad else copied


def _sample(given: Given, size: int) -> Given:
    return Given(*(mapped(part, _random(size)) for part in (given.args, dict(given.kwargs or {}))))


def _random(size: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: Tensor) -> Tensor:
        shape = [*tensor.shape]
        if size and len(shape) > 3:
            shape = [*shape[:2], *(min(size, side) for side in shape[2:])]
        if not tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        return torch.randn(shape, generator=generator).to(tensor)

    return draw


def _is_same(one: Tensor, two: Tensor) -> bool:
    try:
        return torch.equal(one, two)
    except (RuntimeError, NotImplementedError):  # not every kind of tensor can be compared
        return False


def _restore(values: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for tensor, value in values:
            tensor.copy_(value)


def _random_state() -> tuple[Any, ...]:
    # Dropout on a GPU draws from that GPU's own generator.
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *gpus], random.getstate(), np.random.get_state()


def _set_random_state(state: tuple[Any, ...]) -> None:
    cpu, *gpus = state[0]
    torch.set_rng_state(cpu)
    if gpus:
        torch.cuda.set_rng_state_all(gpus)
    random.setstate(state[1])
    np.random.set_state(state[2])


def _is_same_state(one: tuple[Any, ...], two: tuple[Any, ...]) -> bool:
    same = len(one[0]) == len(two[0]) and all(map(torch.equal, one[0], two[0]))
    return same and one[1] == two[1] and all(map(np.array_equal, one[2], two[2]))


@contextlib.contextmanager
def _randomness_kept() -> Iterator[None]:
    state = _random_state()
    try:
        yield
    finally:
        _set_random_state(state)
