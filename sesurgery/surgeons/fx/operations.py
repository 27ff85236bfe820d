"""What a plan changes: the modules whose forwards contain the places, each with its graphs and its sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from sesurgery.planner import Plan, Removal, Site
from sesurgery.surgeons.fx import places
from sesurgery.surgeons.fx.changed import compiled
from sesurgery.surgeons.fx.comparing import Twin, compare
from sesurgery.surgeons.fx.copying import twin
from sesurgery.surgeons.fx.inputs import Given, Inputs
from sesurgery.surgeons.fx.owners import Calls, Owner, find
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

    @property
    def sites(self) -> tuple[tuple[Site, bool], ...]:
        """The sites, and whether every reading of the value is rerouted."""
        return tuple((item.what, item.whole) for item in self.owner.items if isinstance(item.what, Site))

    @property
    def removals(self) -> tuple[Removal, ...]:
        return tuple(item.what for item in self.owner.items if isinstance(item.what, Removal))


def operations(part: nn.Module, frame: Frame, plan: Plan) -> Iterator[Operation]:
    """What is to be done in one frame; raises SE403 if the module of a site cannot be traced."""
    names = {frame.name(node) for node in frame.traced.graph.nodes}
    sites = [site for site in plan.sites if site.value in names]
    removals = [gone for gone in plan.removals if gone.output in names]
    if not sites and not removals:
        return
    calls = Calls(frame)
    for owner in find(frame, sites, removals):
        path = frame.absolute(calls.path(owner.base))
        module = part.get_submodule(path)
        traced = _traced(calls, owner, module)
        nodes = places.known(calls, owner, traced)
        graphs = [ModeGraph(traced.graph, nodes)]
        if traced.training_graph is not None:
            graphs.append(
                ModeGraph(traced.training_graph, places.in_training(traced.graph, traced.training_graph, nodes))
            )
        yield Operation(owner, frame, path, module, tuple(graphs), traced.read)


def _traced(calls: Calls, owner: Owner, module: nn.Module) -> Trace:
    """The owner's forward as a graph of its own, its open parts seen through and all others called."""
    frame, path = calls.frame, calls.path(owner.base)
    prefix = f"{path}." if path else ""
    opened = frozenset(key.partition("@")[0].removeprefix(prefix) for key in owner.open)
    if owner.base:
        call = calls.by_key[owner.base[-1]]
        given = Given(call.args, call.kwargs)
        way = Way(open=opened, guarded=True, around=frame.traced.sizes)
        traced = trace_call(module, Inputs(given, given), way)
    else:
        traced = trace_call(module, frame.inputs, Way(open=opened, guarded=True))
    for name in traced.constants:
        # A tensor that a forward makes moves with its network once it is the graph's, and is not a key.
        if isinstance(value := vars(traced.root)[name], Tensor):
            module.register_buffer(name, value, persistent=False)
    return traced


def require_same_function(part: nn.Module, operations: Iterable[Operation], given: Given) -> None:
    """Raise SE403 if a forward's graph is another function than the forward."""
    # On a copy: a forward may store values from a run (attention biases in timm, LeViT).
    shadow = twin(part)
    twins = []
    for made in operations:
        runs = tuple(compiled(each.graph, type(made.module).__name__) for each in made.graphs)
        twins.append(Twin(made.path, shadow.get_submodule(made.path), runs))
    if twins:
        compare(shadow, twins, given)
