"""What a plan changes: the modules whose forwards contain the places, each with its graphs and its sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.planner import Plan, Removal, Site
from sesurgery.surgeons.base import Unfaithful
from sesurgery.surgeons.fx import places, siblings
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
    likeness: Hashable | None
    """Equal for owners with equal graphs; None for one that is alone."""

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


def faithful(
    part: nn.Module, frames: Sequence[Frame], plan: Plan, given: Given, tell: Callable[[str], object]
) -> list[Operation]:
    """What is to be done in all frames, by graphs that are the same functions as the forwards in whose place they run.

    Where one is not, a smaller module owns the place, if one can; raises Unfaithful (SE403) else. `tell` is called
    with what could not be compared.
    """
    avoided: frozenset[str] = frozenset()
    while True:
        found: list[Operation] = []
        differences: list[Difference] = []
        owned = [each for frame in frames for each in _owned(part, frame, plan, avoided)]
        traces = patched(part.modules(), partial(_traced, owned))
        for each, (traced, likeness) in zip(owned, traces, strict=True):
            if isinstance(traced, Difference):
                differences.append(traced)
            else:
                found.append(each.operation(traced, likeness))
        differences = differences or _differences(part, found, given, tell)
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


def _traced(owned: Sequence[_Owned], patches: Patches) -> list[tuple[Trace | Difference, Hashable | None]]:
    """Every owner's forward as a graph, and what is equal for owners with equal graphs: those are traced once."""
    known: dict[Hashable, Trace] = {}
    found: list[tuple[Trace | Difference, Hashable | None]] = []
    kinds = Counter(type(each.module) for each in owned)
    for each in owned:
        likeness = each.likeness() if kinds[type(each.module)] > 1 else None
        if likeness is not None and likeness in known:
            found.append((siblings.copied(known[likeness]), likeness))
            continue
        traced = each.traced(patches)
        if isinstance(traced, Difference) or not siblings.may_be_copied(traced):
            likeness = None
        elif likeness is not None:
            known[likeness] = traced
        found.append((traced, likeness))
    return found


@dataclass(frozen=True)
class _Owned:
    """An owner with the module that it is."""

    calls: Calls
    owner: Owner
    path: str
    module: nn.Module

    @property
    def opened(self) -> frozenset[str]:
        """The parts of the owner that are seen through."""
        inner = self.calls.path(self.owner.base)
        prefix = f"{inner}." if inner else ""
        return frozenset(self.calls.path_of(key).removeprefix(prefix) for key in self.owner.open)

    def likeness(self) -> Hashable | None:
        """Equal for owners that are traced to one graph; None where that is not known."""
        if not self.owner.base:
            return None
        call = self.calls.by_key[self.owner.base[-1]]
        return siblings.likeness(self.module, self.opened, call.args, call.kwargs)

    def traced(self, patches: Patches) -> Trace | Difference:
        """The owner's forward as a graph of its own, its open parts seen through and all others called."""
        frame, base = self.calls.frame, self.owner.base
        inputs, way = frame.inputs, Way(open=self.opened, guarded=True)
        if base:
            call = self.calls.by_key[base[-1]]
            given = Given(call.args, call.kwargs)
            inputs, way = Inputs(given, given), replace(way, around=frame.traced.sizes)
        try:
            return trace_call(self.module, inputs, way, patches)
        except SesurgeryError as error:
            return Difference(self.path, error.diagnostics[0])

    def operation(self, traced: Trace, likeness: Hashable | None) -> Operation:
        """What is to be done in the owner's graph, or in its graphs."""
        nodes = places.known(self.calls, self.owner, traced)
        graphs = [ModeGraph(traced.graph, nodes)]
        if traced.training_graph is not None:
            graphs.append(
                ModeGraph(traced.training_graph, places.in_training(traced.graph, traced.training_graph, nodes))
            )
        # A tensor that a forward makes moves with its network once it is the graph's, and is not a key.
        made = {name: value for name in traced.constants if isinstance(value := vars(traced.root)[name], Tensor)}
        return Operation(
            self.owner, self.calls.frame, self.path, self.module, tuple(graphs), traced.read, made, likeness
        )


def _differences(
    part: nn.Module, operations: Iterable[Operation], given: Given, tell: Callable[[str], object]
) -> list[Difference]:
    """The modules whose forward's graph is another function than the forward."""
    # On a copy: a forward may store values from a run (attention biases in timm, LeViT).
    shadow = twin(part)
    twins, known = [], dict[Hashable, tuple[Callable[..., Any], ...]]()
    for made in operations:
        runs = known.get(made.likeness) if made.likeness is not None else None
        if runs is None:
            runs = tuple(compiled(each.graph, type(made.module).__name__) for each in made.graphs)
            known[made.likeness] = runs
        module = shadow.get_submodule(made.path)
        made.register(module)
        twins.append(Twin(made.path, module, runs))
    return compare(shadow, twins, given, tell) if twins else []
