"""What a plan changes: the modules whose forwards contain the places, each with its graphs and its sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.planner import Plan, Removal, Site
from sesurgery.surgeons.base import Unfaithful
from sesurgery.surgeons.fx import places
from sesurgery.surgeons.fx.changed import compiled
from sesurgery.surgeons.fx.comparing import Difference, Twin, compare
from sesurgery.surgeons.fx.copying import twin
from sesurgery.surgeons.fx.inputs import Given, Inputs
from sesurgery.surgeons.fx.owners import Calls, Owner, find
from sesurgery.surgeons.fx.patches import Patches, patched
from sesurgery.surgeons.fx.traced import Trace, Way
from sesurgery.surgeons.fx.tracing import trace_call
from sesurgery.surgeons.fx.view import Frame


@dataclass(frozen=True)
class ModeGraph:
    """One graph of an owner, with the nodes that the plan's names stand for."""

    graph: fx.Graph
    nodes: dict[str, fx.Node]


@dataclass(frozen=True)
class Operation:
    """An owner, the module that it is, and its graphs: one, or one a mode (eval, train)."""

    owner: Owner
    frame: Frame
    path: str
    module: nn.Module
    graphs: tuple[ModeGraph, ...]
    read: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """What the forward makes and the graph holds, by the names that the module is to give it."""

    @property
    def sites(self) -> tuple[tuple[Site, bool], ...]:
        """The sites, and whether every reading of the value is rerouted."""
        return tuple((item.what, item.whole) for item in self.owner.items if isinstance(item.what, Site))

    def register(self, module: nn.Module) -> None:
        """Give a module the tensors that its forward makes."""
        for name, value in self.tensors.items():
            module.register_buffer(name, value, persistent=False)

    @property
    def removals(self) -> tuple[Removal, ...]:
        return tuple(item.what for item in self.owner.items if isinstance(item.what, Removal))


def faithful(part: nn.Module, frames: Sequence[Frame], plan: Plan, given: Given) -> list[Operation]:
    """What is to be done in all frames, by graphs that are the same functions as the forwards in whose place they run.

    Where one is not, a smaller module owns the place, if one can; raises Unfaithful (SE403) else.
    """
    avoided: frozenset[str] = frozenset()
    while True:
        found: list[Operation] = []
        differences: list[Difference] = []
        owned = [each for frame in frames for each in _owned(part, frame, plan, avoided)]
        traces = patched(part.modules(), partial(_traced, owned))
        for each, traced in zip(owned, traces, strict=True):
            if isinstance(traced, Difference):
                differences.append(traced)
            else:
                found.append(each.operation(traced))
        differences = differences or _differences(part, found, given)
        if not differences:
            return found
        parts = {difference.path for difference in differences}
        if parts <= avoided:
            raise Unfaithful([difference.said for difference in differences], parts)
        avoided |= parts


def _owned(part: nn.Module, frame: Frame, plan: Plan, avoided: frozenset[str]) -> Iterator[_Owned]:
    """The owners of one frame."""
    names = {frame.name(node) for node in frame.traced.graph.nodes}
    sites = [site for site in plan.sites if site.value in names]
    removals = [gone for gone in plan.removals if gone.output in names]
    if not sites and not removals:
        return
    calls = Calls(frame)
    for owner in find(frame, sites, removals, avoided):
        path = frame.absolute(calls.path(owner.base))
        yield _Owned(calls, owner, path, part.get_submodule(path))


def _traced(owned: Iterable[_Owned], patches: Patches) -> list[Trace | Difference]:
    return [each.traced(patches) for each in owned]


@dataclass(frozen=True)
class _Owned:
    """An owner with the module that it is."""

    calls: Calls
    owner: Owner
    path: str
    module: nn.Module

    def traced(self, patches: Patches) -> Trace | Difference:
        """The owner's forward as a graph of its own, its open parts seen through and all others called."""
        frame, base = self.calls.frame, self.owner.base
        inner = self.calls.path(base)
        prefix = f"{inner}." if inner else ""
        opened = frozenset(key.partition("@")[0].removeprefix(prefix) for key in self.owner.open)
        inputs, way = frame.inputs, Way(open=opened, guarded=True)
        if base:
            call = self.calls.by_key[base[-1]]
            given = Given(call.args, call.kwargs)
            inputs, way = Inputs(given, given), replace(way, around=frame.traced.sizes)
        try:
            return trace_call(self.module, inputs, way, patches)
        except SesurgeryError as error:
            return Difference(self.path, error.diagnostics[0])

    def operation(self, traced: Trace) -> Operation:
        """What is to be done in the owner's graph, or in its graphs."""
        nodes = places.known(self.calls, self.owner, traced)
        graphs = [ModeGraph(traced.graph, nodes)]
        if traced.training_graph is not None:
            graphs.append(
                ModeGraph(traced.training_graph, places.in_training(traced.graph, traced.training_graph, nodes))
            )
        # A tensor that a forward makes moves with its network once it is the graph's, and is not a key.
        made = {name: value for name in traced.constants if isinstance(value := vars(traced.root)[name], Tensor)}
        return Operation(self.owner, self.calls.frame, self.path, self.module, tuple(graphs), traced.read, made)


def _differences(part: nn.Module, operations: Iterable[Operation], given: Given) -> list[Difference]:
    """The modules whose forward's graph is another function than the forward."""
    # On a copy: a forward may store values from a run (attention biases in timm, LeViT).
    shadow = twin(part)
    twins = []
    for made in operations:
        runs = tuple(compiled(each.graph, type(made.module).__name__) for each in made.graphs)
        module = shadow.get_submodule(made.path)
        made.register(module)
        twins.append(Twin(made.path, module, runs))
    return compare(shadow, twins, given) if twins else []
