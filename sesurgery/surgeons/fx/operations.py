"""What a plan changes: the modules whose forwards contain the places, each with its graphs and its sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from sesurgery.surgeons.fx.symbols import builtins_that_see_symbols
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
        with builtins_that_see_symbols(part.modules()):
            for made in (made for frame in frames for made in _operations(part, frame, plan, avoided)):
                found += [made] if isinstance(made, Operation) else []
                differences += [made] if isinstance(made, Difference) else []
        differences = differences or _differences(part, found, given)
        if not differences:
            return found
        parts = {difference.path for difference in differences}
        if parts <= avoided:
            raise Unfaithful([difference.said for difference in differences], parts)
        avoided |= parts


def _operations(part: nn.Module, frame: Frame, plan: Plan, avoided: frozenset[str]) -> Iterator[Operation | Difference]:
    """What is to be done in one frame, or what cannot be traced."""
    names = {frame.name(node) for node in frame.traced.graph.nodes}
    sites = [site for site in plan.sites if site.value in names]
    removals = [gone for gone in plan.removals if gone.output in names]
    if not sites and not removals:
        return
    calls = Calls(frame)
    for owner in find(frame, sites, removals, avoided):
        path = frame.absolute(calls.path(owner.base))
        module = part.get_submodule(path)
        try:
            traced = _traced(calls, owner, module)
        except SesurgeryError as error:
            yield Difference(path, error.diagnostics[0])
            continue
        nodes = places.known(calls, owner, traced)
        graphs = [ModeGraph(traced.graph, nodes)]
        if traced.training_graph is not None:
            graphs.append(
                ModeGraph(traced.training_graph, places.in_training(traced.graph, traced.training_graph, nodes))
            )
        # A tensor that a forward makes moves with its network once it is the graph's, and is not a key.
        made = {name: value for name in traced.constants if isinstance(value := vars(traced.root)[name], Tensor)}
        yield Operation(owner, frame, path, module, tuple(graphs), traced.read, made)


def _traced(calls: Calls, owner: Owner, module: nn.Module) -> Trace:
    """The owner's forward as a graph of its own, its open parts seen through and all others called."""
    frame, path = calls.frame, calls.path(owner.base)
    prefix = f"{path}." if path else ""
    opened = frozenset(key.partition("@")[0].removeprefix(prefix) for key in owner.open)
    if owner.base:
        call = calls.by_key[owner.base[-1]]
        given = Given(call.args, call.kwargs)
        way = Way(open=opened, guarded=True, around=frame.traced.sizes)
        return trace_call(module, Inputs(given, given), way)
    return trace_call(module, frame.inputs, Way(open=opened, guarded=True))


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
