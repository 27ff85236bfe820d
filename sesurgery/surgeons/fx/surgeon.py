"""The surgeon for PyTorch: torch.fx draws the network and reroutes values; every original name and value survives.

The plan is made on the drawing of the whole network. It is carried out in the smallest modules whose forwards contain
the places: each of them runs a graph instead of its code, everything around them stays the user's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from sesurgery.diagnostics import Diagnostic, SesurgeryError, described, fail, suggest
from sesurgery.graph import GraphView, Shape
from sesurgery.planner import Plan, Removal, Site
from sesurgery.surgeons.base import Outline, Surgeon, Weights
from sesurgery.surgeons.fx import places
from sesurgery.surgeons.fx.admission import admit, with_parts
from sesurgery.surgeons.fx.changed import change, compiled, hold
from sesurgery.surgeons.fx.comparing import Twin, compare
from sesurgery.surgeons.fx.copying import duplicate, twin
from sesurgery.surgeons.fx.inputs import Given, Inputs, image_inputs
from sesurgery.surgeons.fx.owners import Calls, Owner, find
from sesurgery.surgeons.fx.proof import prove
from sesurgery.surgeons.fx.symbols import builtins_that_see_symbols
from sesurgery.surgeons.fx.tracing import Trace, Way, trace_call
from sesurgery.surgeons.fx.view import Drawing, Frame, draw, scope_of
from sesurgery.surgeons.grafting import graft


@dataclass(frozen=True)
class _Opened:
    """A copy of a network, the part of it that is operated on, what that is called with, and its drawing."""

    whole: nn.Module
    part: nn.Module
    inputs: Inputs
    drawing: Drawing

    @property
    def view(self) -> GraphView:
        return self.drawing.view


@dataclass(frozen=True)
class _ModeGraph:
    """One graph of an owner, with the nodes that the plan's names stand for."""

    graph: fx.Graph
    nodes: dict[str, fx.Node]


@dataclass(frozen=True)
class _Operation:
    """An owner, the module that it is, and its graphs: one, or one a mode (eval, train)."""

    owner: Owner
    frame: Frame
    path: str
    module: nn.Module
    graphs: tuple[_ModeGraph, ...]
    read: Mapping[str, Any]

    @property
    def sites(self) -> tuple[tuple[Site, bool], ...]:
        """The sites, and whether every reading of the value is rerouted."""
        return tuple((item.what, item.whole) for item in self.owner.items if isinstance(item.what, Site))

    @property
    def removals(self) -> tuple[Removal, ...]:
        return tuple(item.what for item in self.owner.items if isinstance(item.what, Removal))


class FxSurgeon(Surgeon[nn.Module, _Opened]):
    """View and apply for `torch.nn.Module`s that take one image tensor of `shape` (channels, height, width).

    With `submodule` only that part of the model is looked at and changed, and `shape` is the part's input: a detector's
    backbone, whose whole takes and gives more than one tensor. With `inputs` the model is called with these, in
    whatever number and form, and `shape` is not used.
    """

    def __init__(self, shape: Shape, submodule: str = "", inputs: Inputs | None = None) -> None:
        self.shape = shape
        self.submodule = submodule
        self.inputs = inputs

    def part(self, model: nn.Module) -> nn.Module:
        """The part of the model that this surgeon changes; raises SE306 where there is no such part."""
        try:
            return model.get_submodule(self.submodule)
        except AttributeError:
            known = [path for path, _ in model.named_modules() if path]
            text = f"the model has no submodule {self.submodule!r}"
            raise fail("SE306", text, suggest(self.submodule, known)) from None

    def _inputs(self, part: nn.Module) -> Inputs:
        return self.inputs or image_inputs(part, self.shape)

    def look(self, model: nn.Module) -> Outline:
        admit(model)
        part = self.part(model)
        inputs = self._inputs(part)
        try:
            drawing = draw(part, inputs)
        except SesurgeryError as error:
            if self.submodule or self.inputs:
                raise
            raise with_parts(error, part, self.shape) from error
        return Outline(drawing.view, drawing.leaves)

    def _open(self, model: nn.Module) -> _Opened:
        admit(model)
        whole = duplicate(model)
        part = self.part(whole)
        inputs = self._inputs(part)
        return _Opened(whole, part, inputs, draw(part, inputs))

    def _insert(self, opened: _Opened, plan: Plan, weights: Weights | None) -> nn.Module:
        part = opened.part
        with builtins_that_see_symbols(part.modules()):
            operations = [made for frame in opened.drawing.frames for made in _operations(part, frame, plan)]
        _compare(part, operations, opened.inputs.two)
        for operation in operations:
            for each in operation.graphs:
                for gone in operation.removals:
                    _remove(each.graph, each.nodes, gone)
        _uninstall_from_frames(part, opened.drawing.frames, plan.removals)
        for operation in operations:
            _remove_placeholders(part, operation)
        blocks = _build(part, plan, weights)
        for operation in operations:
            for each in operation.graphs:
                _wire(each, operation)
        for path, block in blocks.items():
            _install(part, path, block)
        for operation in operations:
            change(operation.module, [each.graph for each in operation.graphs], operation.read)
        return opened.whole

    def _prove(self, changed: nn.Module, plan: Plan) -> None:
        # A copy with the same parameters: a forward may store values from a run.
        part = twin(self.part(changed))
        try:
            prove(part, {site.key: site.module for site in plan.sites}, self._inputs(part).two)
        except SesurgeryError:
            raise
        except Exception as error:
            text = f"the network with its blocks cannot be differentiated: {described(error)}"
            raise fail("SE404", text, "name a part of it as 'submodule', or leave parts out with 'except'") from error


def _operations(part: nn.Module, frame: Frame, plan: Plan) -> Iterator[_Operation]:
    """What is to be done in one frame; raises SE403 where the module of a site cannot be traced."""
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
        graphs = [_ModeGraph(traced.graph, nodes)]
        if traced.training_graph is not None:
            graphs.append(
                _ModeGraph(traced.training_graph, places.in_training(traced.graph, traced.training_graph, nodes))
            )
        yield _Operation(owner, frame, path, module, tuple(graphs), traced.read)


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
        # A tensor that a forward makes moves with its network once it is the graph's, and is no key.
        if isinstance(value := vars(traced.root)[name], Tensor):
            module.register_buffer(name, value, persistent=False)
    return traced


def _compare(part: nn.Module, operations: Iterable[_Operation], given: Given) -> None:
    """Raise SE403 where a forward's graph is another function than the forward."""
    # On a copy: a forward may store values from a run (attention biases in timm, LeViT).
    shadow = twin(part)
    twins = []
    for made in operations:
        runs = tuple(compiled(each.graph, type(made.module).__name__) for each in made.graphs)
        twins.append(Twin(made.path, shadow.get_submodule(made.path), runs))
    if twins:
        compare(shadow, twins, given)


def _reroute(user: fx.Node, slot: int, new: fx.Node) -> None:
    """Make the user read `new` at its input number `slot`."""
    count = -1

    def replace(value: fx.Node) -> fx.Node:
        nonlocal count
        count += 1
        return new if count == slot else value

    user.args, user.kwargs = map_arg((user.args, user.kwargs), replace)


def _remove_placeholders(part: nn.Module, operation: _Operation) -> None:
    """Remove the identities with the blocks' names, which timm keeps where a block could be.

    They do nothing, but are called, on another value than the block will be.
    """
    prefix = f"{operation.path}." if operation.path else ""
    paths = {site.module for site, _ in operation.sites}
    needed = {
        name
        for site, whole in operation.sites
        for name in (site.value, *(() if whole else (use.user for use in site.uses)))
    }
    for path in paths:
        if not path.startswith(prefix):
            continue
        parent, _, name = path.rpartition(".")
        if type(getattr(part.get_submodule(parent), name, None)) is not nn.Identity:
            continue
        calls = [
            [node for node in each.graph.nodes if node.op == "call_module" and node.target == path.removeprefix(prefix)]
            for each in operation.graphs
        ]
        kept = {each.nodes[name] for each in operation.graphs for name in needed if name in each.nodes}
        if not kept.isdisjoint(node for nodes in calls for node in nodes):
            continue
        for nodes in calls:
            for node in nodes:
                node.replace_all_uses_with(node.all_input_nodes[0])
                node.graph.erase_node(node)
        delattr(part.get_submodule(parent), name)


def _build(model: nn.Module, plan: Plan, weights: Weights | None) -> dict[str, nn.Module]:
    """Every site's block on the network's device and in its dtype; raises SE305 or SE405 for all sites at once."""
    reference = next((part for part in model.parameters() if part.is_floating_point()), None)
    blocks: dict[str, nn.Module] = {}
    mistakes: list[Diagnostic] = []
    for site in plan.sites:
        if _taken(model, site.module) or site.module in blocks:
            text = f"{site.key}: the network already has something called {site.module!r}"
            mistakes.append(Diagnostic("SE405", text, hint="give the rule another 'name'", site=site.key))
            continue
        try:
            block = site.block.options.build(site.channels)
        except Exception as error:
            hint = "change the block's options"
            mistakes.append(Diagnostic("SE305", f"{site.key}: {error}", hint=hint, site=site.key))
            continue
        if reference is not None:
            block.to(device=reference.device, dtype=reference.dtype)
        blocks[site.module] = block.train(model.training)
        mistakes += graft(site, block, weights)
    if mistakes:
        raise SesurgeryError(mistakes)
    return blocks


def _wire(mode: _ModeGraph, operation: _Operation) -> None:
    """Call every site's block in the graph, and let exactly the planned readings read it."""
    prefix = f"{operation.path}." if operation.path else ""
    for site, whole in operation.sites:
        value = mode.nodes.get(site.value)
        if value is None:
            raise places.missing(site.key, operation.path)
        target = site.module.removeprefix(prefix)
        with mode.graph.inserting_after(_behind(value)):
            scaled = mode.graph.create_node("call_module", target, (value,), name=target.replace(".", "_"))
        if whole:
            value.replace_all_uses_with(scaled, delete_user_cb=scaled.__ne__)
            continue
        # `out += identity` mutates: readings are rerouted, never a name.
        for use in site.uses:
            if use.user in mode.nodes:
                _reroute(mode.nodes[use.user], use.slot, scaled)


def _behind(value: fx.Node) -> fx.Node:
    """The node to insert behind: a graph's arguments come first, all together."""
    if value.op != "placeholder":
        return value
    last = value
    while last.next.op == "placeholder":
        last = last.next
    return last


def _remove(graph: fx.Graph, nodes: dict[str, fx.Node], gone: Removal) -> set[str]:
    """Let all readers of a gate's output read its input; returns the targets of the nodes erased with the gate."""
    output, value = nodes[gone.output], nodes[gone.value]
    output.replace_all_uses_with(value)
    dead, targets = [output], set()
    while dead:
        node = dead.pop()
        sources = node.all_input_nodes
        if node.op in ("call_module", "get_attr"):
            targets.add(str(node.target))
        graph.erase_node(node)
        dead += [
            source for source in sources if not source.users and source is not value and source.op != "placeholder"
        ]
    return targets


def _uninstall_from_frames(part: nn.Module, frames: Iterable[Frame], removals: Iterable[Removal]) -> None:
    """Delete the modules of the gates that went."""
    for frame in frames:
        graph = frame.traced.graph
        names = {frame.name(node): node for node in graph.nodes}
        own = [gone for gone in removals if gone.output in names]
        prefix = f"{frame.path}." if frame.path else ""
        erased = [(gone.scope.removeprefix(prefix), _remove(graph, names, gone)) for gone in own]
        if erased:
            _uninstall(part.get_submodule(frame.path), [graph], erased)


def _uninstall(root: nn.Module, graphs: list[fx.Graph], erased: list[tuple[str, set[str]]]) -> None:
    """Delete the modules that only erased nodes called; a gate's own module whole, where nothing in it is left.

    `erased` holds the scope of every gate that went, and the targets of its nodes.
    """
    nodes = [node for graph in graphs for node in graph.nodes]
    left = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    alive = {outer for path in {*left, *map(scope_of, nodes)} for outer in _outwards(path)}
    for scope, targets in erased:
        for target in {scope} if scope and scope not in alive else targets - left:
            parent, _, name = target.rpartition(".")
            try:
                owner = root.get_submodule(parent)
            except AttributeError:
                # It went with a gate that it was a part of.
                continue
            if name in owner._modules:
                # As timm writes it where there is none: code that asks `if self.se is not None` goes on working.
                del owner._modules[name]
                owner.__dict__[name] = None


def _outwards(path: str) -> Iterator[str]:
    """The path, and those of all modules around it."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _taken(model: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    return hasattr(type(owner), name) or getattr(owner, name, None) is not None


def _install(root: nn.Module, path: str, block: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    owner = root.get_submodule(parent)
    # timm keeps `self.se = None` where a block could be: the module takes that attribute's place.
    owner.__dict__.pop(name, None)
    owner.add_module(name, block)
    hold(owner, name)
