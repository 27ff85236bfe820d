"""Channel gates that a torch network has of its own: the factors that they multiply by, seen while it answers.

The surgeon's graph of the network tells which operation is a gate's product. Whenever a module with such a product is
called, its graph gets the same arguments, and the factor of the product is read there. A graph can be another function
than the forward (see `surgeons.fx.comparing`), so its output is compared with the module's on every batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from sesurgery.graph import Op
from sesurgery.graph.gates import ChannelGate, channel_gates, names_of
from sesurgery.surgeons.fx.inputs import Given, mapped, tensors
from sesurgery.surgeons.fx.view import Drawing, Frame
from sesurgery.training.evaluation import logits
from sesurgery.verification.gate_values import SPATIAL, Floats, gate_of, joined

SAME = 1e-4
"""Largest difference of a graph's output from its module's, of the largest value."""


def existing_gates(
    network: nn.Module, part: nn.Module, drawing: Drawing, ours: Collection[str], batches: Iterable[Tensor]
) -> dict[str, Floats | None]:
    """The gates [N, C] that `part` of a network has outside the modules of `ours`, in the order of its graph.

    `drawing` is that of the part, and `ours` are paths in it. A gate is called after its module. It is None where it
    differs over the map, where the graph is another function than the module whose gate it is, and of a module of which
    there is no graph and in which gates are hidden.
    """
    found = [gate for gate in channel_gates(drawing.view) if not _lies_in(gate.mul.scope, ours)]
    called = names_of(found)
    seen: dict[str, list[Tensor | None]] = {key: [] for key in called.values()}
    owners = {frame.name(node): frame for frame in drawing.frames for node in frame.traced.graph.nodes}
    with ExitStack() as hooks:
        for frame in drawing.frames:
            gates = [gate for gate in found if owners[gate.mul.name] is frame]
            if gates:
                watch = _Watch(frame, gates, drawing.last, called, seen)
                module = part.get_submodule(frame.path)
                # The last that sees the arguments and the first that sees the output: other hooks may change them.
                hooks.callback(module.register_forward_pre_hook(watch.before, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(watch.after, prepend=True).remove)
        if found:
            logits(network, batches)
    hidden = [leaf.path for leaf in drawing.leaves if leaf.gates and not _lies_in(leaf.path, ours)]
    return {key: joined(parts) for key, parts in seen.items()} | dict.fromkeys(hidden)


def _lies_in(scope: str, modules: Iterable[str]) -> bool:
    return any(f"{scope}.".startswith(f"{module}.") for module in modules)


@dataclass
class _Watch:
    """Runs a module's graph beside it; what its gates multiply by goes to `seen`, by what each is `called`."""

    frame: Frame
    gates: Sequence[ChannelGate]
    last: frozenset[str]
    called: Mapping[str, str]
    seen: dict[str, list[Tensor | None]]
    given: list[Given] = field(default_factory=list)

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Copies, because either of the two may write into what it is given.
        self.given.append(Given(mapped(args, Tensor.clone), mapped(kwargs, Tensor.clone)))

    def after(self, module: nn.Module, _: tuple[Any, ...], output: object) -> None:
        run = _Run(self.frame, self.gates, self.last)
        given = self.given.pop().bound(inspect.signature(module.forward))
        try:
            same = _is_same(output, run.called_with(given))
        except Exception:  # a graph that is another function may fail in any way
            same = False
        for gate in self.gates:
            self.seen[self.called[gate.mul.name]].append(run.factors.get(gate.mul.name) if same else None)


class _Run(fx.Interpreter):
    """Runs the graph of one frame, and keeps what its gates multiply by [n, C]; None of one that is not per channel."""

    def __init__(self, frame: Frame, gates: Sequence[ChannelGate], last: frozenset[str]) -> None:
        super().__init__(frame.traced.root, graph=frame.traced.graph)
        self.factors: dict[str, Tensor | None] = {}
        self._frame = frame
        self._products = {gate.mul.name: gate for gate in gates}
        # A sum of products has no one factor; the value is kept, and what the sum is of it.
        self._kept: dict[str, Tensor] = {gate.value.name: torch.empty(0) for gate in gates if not _has_factor(gate)}
        self._last = last

    def called_with(self, given: Mapping[str, Any]) -> object:
        """The graph's output for the arguments of a forward, by name."""
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        names = [str(node.target).lstrip("*") for node in inputs]
        defaults = [node.args[0] if node.args else None for node in inputs]
        return self.run(*(given.get(name, default) for name, default in zip(names, defaults, strict=True)))

    def run_node(self, n: fx.Node) -> Any:
        name = self._frame.name(n)
        gate = self._products.get(name)
        if gate is not None and _has_factor(gate):
            # Before it runs: a product may be written over the value.
            values = {self._frame.name(source): self.env[source] for source in n.all_input_nodes}
            value, factor = values[gate.value.name], values[gate.mul.inputs[1 - gate.slot].name]
            self.factors[name] = _per_channel(*self._channels_second(gate, factor.expand_as(value)))
        made = super().run_node(n)
        if name in self._kept:
            self._kept[name] = made.clone()
        if gate is not None and not _has_factor(gate):
            self.factors[name] = gate_of(*self._channels_second(gate, self._kept[gate.value.name], made))
        return made

    def _channels_second(self, gate: ChannelGate, *maps: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.movedim(-1, 1) for each in maps) if gate.mul.name in self._last else maps


def _has_factor(gate: ChannelGate) -> bool:
    return gate.mul.op is Op.MUL


def _per_channel(factor: Tensor) -> Tensor | None:
    """The gate [n, C] of a factor that is expanded over the map; None if it differs there."""
    over = tuple(range(2, factor.dim()))
    low, high = factor.float().amin(over), factor.float().amax(over)
    return low.cpu() if (high - low).max() <= SPATIAL * high.abs().max() else None


def _is_same(output: object, made: object) -> bool:
    ours, graphs = [*tensors(output)], [*tensors(made)]
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in graphs]:
        return False
    apart = [float((one - two).abs().max()) for one, two in zip(ours, graphs, strict=True) if one.numel()]
    return all(gap <= SAME * float(one.abs().max()) for gap, one in zip(apart, ours, strict=True))
