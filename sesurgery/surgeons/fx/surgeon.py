"""The surgeon for PyTorch: torch.fx draws the network and reroutes values; every original name and value survives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn
from torch.fx.node import map_arg

from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail, suggest
from sesurgery.graph import GraphView, NodeFacts, Shape
from sesurgery.planner import Plan, Removal
from sesurgery.surgeons.base import Sight, Surgeon, Weights
from sesurgery.surgeons.fx import containers
from sesurgery.surgeons.fx import ops as fx_ops
from sesurgery.surgeons.fx.changed import Changed
from sesurgery.surgeons.fx.copying import buffers_kept, duplicate, twin
from sesurgery.surgeons.fx.modes import TwoFaced, counterparts
from sesurgery.surgeons.fx.proof import prove
from sesurgery.surgeons.fx.shapes import map_shapes
from sesurgery.surgeons.fx.tracing import Trace, trace
from sesurgery.surgeons.grafting import graft


@dataclass(frozen=True)
class _Opened:
    """A copy of a network, the part of it that is operated on, and that part's graph in either form."""

    whole: nn.Module
    part: nn.Module
    traced: Trace
    view: GraphView


class FxSurgeon(Surgeon[nn.Module, _Opened]):
    """View and apply for `torch.nn.Module`s that take one image tensor of `shape` (channels, height, width).

    With `submodule` only that part of the model is looked at and changed, and `shape` is the part's input: a detector's
    backbone, whose whole takes and gives more than one tensor.
    """

    def __init__(self, shape: Shape, submodule: str = "") -> None:
        self.shape = shape
        self.submodule = submodule

    def part(self, model: nn.Module) -> nn.Module:
        """What of the model this surgeon operates on; raises SE306 where there is no such part."""
        try:
            return model.get_submodule(self.submodule)
        except AttributeError:
            known = [path for path, _ in model.named_modules() if path]
            text = f"the model has no submodule {self.submodule!r}"
            raise fail("SE306", text, suggest(self.submodule, known)) from None

    def look(self, model: nn.Module) -> Sight:
        traced = trace(twin(self.part(model)), self.shape)
        return Sight(_view(traced, self.shape), traced.leaves)

    def _open(self, model: nn.Module) -> _Opened:
        whole = duplicate(model)
        part = self.part(whole)
        # A buffer is no symbol: what a forward counts in it is counted while tracing.
        with buffers_kept(part):
            traced = trace(part, self.shape)
        return _Opened(whole, part, traced, _view(traced, self.shape))

    def _insert(self, opened: _Opened, plan: Plan, weights: Weights | None) -> nn.Module:
        whole, original, traced = opened.whole, opened.part, opened.traced
        graphs = [graph for graph in (traced.graph, traced.training_graph) if graph is not None]
        # The plan's names are those of the first graph.
        pairs = [(graph, counterparts(traced.graph, graph)) for graph in graphs]
        erased = [
            (gone.scope, {name for graph, known in pairs for name in _remove(graph, known, gone)})
            for gone in plan.removals
        ]
        _uninstall(original, graphs, erased)
        _vacate(original, pairs, plan)
        blocks = _build(original, plan, weights)
        for graph, known in pairs:
            _wire(graph, known, plan)
        for path, block in blocks.items():
            _install(original, path, block)
        changed = [Changed(original, graph, class_name=type(original).__name__) for graph in graphs]
        _keep_everything(original, changed[0], frozenset(blocks))
        done: nn.Module = changed[0]
        if len(changed) == 2:
            done = TwoFaced(changed[0], changed[1])
            done.training = original.training
        if not self.submodule:
            return done
        parent, _, name = self.submodule.rpartition(".")
        setattr(whole.get_submodule(parent), name, done)
        return whole

    def _prove(self, changed: nn.Module, plan: Plan) -> None:
        prove(self.part(changed), {site.key: site.module for site in plan.sites}, self.shape)


def _view(traced: Trace, shape: Shape) -> GraphView:
    shapes = map_shapes(traced, shape)
    facts = []
    for node in traced.graph.nodes:
        op, conv = fx_ops.kind(node, traced.root)
        inputs = tuple(value.name for value in _readings(node))
        facts.append(NodeFacts(node.name, op, inputs, _scope(node), shapes.get(node.name), conv))
    return GraphView(facts)


def _scope(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        path = entry[0]
    return path


def _readings(node: fx.Node) -> list[fx.Node]:
    """Every value that a node reads, in order; one that is read twice stands twice."""
    found: list[fx.Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def _reroute(user: fx.Node, slot: int, new: fx.Node) -> None:
    """Let the user's reading number `slot` be `new`."""
    count = -1

    def replace(value: fx.Node) -> fx.Node:
        nonlocal count
        count += 1
        return new if count == slot else value

    user.args, user.kwargs = map_arg((user.args, user.kwargs), replace)


def _vacate(model: nn.Module, pairs: list[tuple[fx.Graph, dict[str, fx.Node]]], plan: Plan) -> None:
    """Clear away the identities of the blocks' names, which timm keeps where a block could be.

    They do nothing and hold nothing, but are called, and on another value than the block will be.
    """
    names = {name for site in plan.sites for name in (site.value, *(use.user for use in site.uses))}
    needed = {known[name] for _, known in pairs for name in names if name in known}
    places = {site.module for site in plan.sites}
    calls: dict[str, list[fx.Node]] = {}
    for graph, _ in pairs:
        for node in graph.nodes:
            if node.op == "call_module" and node.target in places:
                calls.setdefault(str(node.target), []).append(node)
    for path, own in calls.items():
        if type(model.get_submodule(path)) is not nn.Identity or not needed.isdisjoint(own):
            continue
        for node in own:
            node.replace_all_uses_with(node.all_input_nodes[0])
            node.graph.erase_node(node)
        parent, _, name = path.rpartition(".")
        delattr(model.get_submodule(parent), name)


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


def _wire(graph: fx.Graph, nodes: dict[str, fx.Node], plan: Plan) -> None:
    """Call every site's block in the graph, and let exactly the planned readings read it."""
    for site in plan.sites:
        value = nodes[site.value]
        with graph.inserting_after(value):
            scaled = graph.create_node("call_module", site.module, (value,), name=site.module.replace(".", "_"))
        # `out += identity` mutates: readings are rerouted, never a name.
        for use in site.uses:
            _reroute(nodes[use.user], use.slot, scaled)


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


def _uninstall(root: nn.Module, graphs: list[fx.Graph], erased: list[tuple[str, set[str]]]) -> None:
    """Delete the modules that only erased nodes called; a gate's own module whole, where nothing in it is left.

    `erased` holds the scope of every gate that went, and the targets of its nodes.
    """
    nodes = [node for graph in graphs for node in graph.nodes]
    left = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    alive = {outer for path in {*left, *map(_scope, nodes)} for outer in _outwards(path)}
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


def _keep_everything(original: nn.Module, changed: fx.GraphModule, blocks: frozenset[str]) -> None:
    """Give the graph module all that the original has and the graph does not use, in the original's order.

    A GraphModule copies only what its graph calls. Heads that run in training alone, buffers that nobody reads and the
    order of parameters (which optimiser states count on) would be lost. `blocks` are the paths of what is new.
    """
    holders = {path.rpartition(".")[0] for path in blocks}
    for path, module in original.named_modules(remove_duplicate=False):
        try:
            copied = changed.get_submodule(path)
        except AttributeError:
            parent, _, name = path.rpartition(".")
            changed.get_submodule(parent).add_module(name, module)
            continue
        if copied is module:
            continue
        copied.training = module.training
        for table in ("_parameters", "_buffers", "_modules"):
            here, there = getattr(copied, table), getattr(module, table)
            extra = {name: value for name, value in here.items() if name not in there}
            kept = {name: here.get(name, value) for name, value in there.items()}
            here.clear()
            here.update({**kept, **extra})
        # A tensor that is a plain attribute, or a constant in a forward, became a buffer: it must not become a key.
        constants = copied._buffers.keys() - module._buffers.keys()
        copied._non_persistent_buffers_set = module._non_persistent_buffers_set | constants
        if path not in holders:
            containers.restore(copied, module)
