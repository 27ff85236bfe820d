"""The surgeon for PyTorch: torch.fx draws the network and reroutes values; every original name and value survives."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_arg

from sesurgery.accounting import NEEDS_VALUES
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail, suggest
from sesurgery.graph import GraphView, NodeFacts, Op, Shape
from sesurgery.planner import Plan, Removal
from sesurgery.surgeons import fx_ops
from sesurgery.surgeons.base import Surgeon, Weights
from sesurgery.surgeons.faces import TwoFaced, counterparts
from sesurgery.surgeons.grafting import graft
from sesurgery.surgeons.proof import prove
from sesurgery.surgeons.tracing import Leaf, Trace, trace


class FxSurgeon(Surgeon[nn.Module]):
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

    def view(self, model: nn.Module) -> GraphView:
        traced = trace(_twin(self.part(model)), self.shape)
        shapes = self._shapes(traced)
        facts = []
        for node in traced.graph.nodes:
            op, conv = fx_ops.kind(node, traced.root)
            inputs = tuple(value.name for value in _readings(node))
            facts.append(NodeFacts(node.name, op, inputs, _scope(node), shapes.get(node.name), conv))
        return GraphView(facts)

    def leaves(self, model: nn.Module) -> tuple[Leaf, ...]:
        """The modules that tracing had to take as a whole, and why."""
        return trace(_twin(self.part(model)), self.shape).leaves

    def _insert(self, model: nn.Module, plan: Plan, weights: Weights | None) -> nn.Module:
        whole = copy.deepcopy(model)
        original = self.part(whole)
        traced = trace(original, self.shape)
        graphs = [graph for graph in (traced.graph, traced.training_graph) if graph is not None]
        # The plan's names are those of the first graph.
        nodes = [counterparts(traced.graph, graph) for graph in graphs]
        for gone in plan.removals:
            targets = set().union(*(_remove(graph, known, gone) for graph, known in zip(graphs, nodes, strict=True)))
            _uninstall(original, graphs, gone.scope, targets)
        _vacate(original, graphs, nodes, plan)
        blocks = _build(original, plan, weights)
        for graph, known in zip(graphs, nodes, strict=True):
            _wire(graph, known, plan)
        for path, block in blocks.items():
            _install(original, path, block)
        changed = [fx.GraphModule(original, graph, class_name=type(model).__name__) for graph in graphs]
        _keep_everything(original, changed[0])
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

    def _shapes(self, traced: Trace) -> dict[str, Shape]:
        """Shapes of all four-dimensional values, found without computing anything wherever that is possible."""
        module = fx.GraphModule(traced.root, traced.graph).eval()
        try:
            try:
                with FakeTensorMode(allow_non_fake_inputs=True):
                    return self._run(module)
            except NEEDS_VALUES:
                # A leaf that looks at its data has nothing to look at in a fake tensor.
                return self._run(copy.deepcopy(module))
        except Exception as error:
            size = "x".join(map(str, self.shape))
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise fail(
                "SE304", f"the network does not take an input of {size}: {why}", "change 'input: shape'"
            ) from error

    def _run(self, module: fx.GraphModule) -> dict[str, Shape]:
        found: dict[str, Shape] = {}
        parameter = next((part for part in module.parameters() if part.is_floating_point()), torch.empty(0))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = torch.zeros(2, *self.shape, device=parameter.device, dtype=parameter.dtype)
            _Shapes(module, found).run(example)
        return found


class _Shapes(fx.Interpreter):
    """Runs a graph on fake tensors and writes down the shapes."""

    def __init__(self, module: fx.GraphModule, found: dict[str, Shape]) -> None:
        super().__init__(module)
        self.found = found

    def run_node(self, n: fx.Node) -> Any:
        result = self._unchanged(n) if n.op == "call_module" else None
        result = super().run_node(n) if result is None else result
        if isinstance(result, Tensor) and result.dim() == 4:
            self.found[n.name] = (int(result.shape[1]), int(result.shape[2]), int(result.shape[3]))
        return result

    def _unchanged(self, n: fx.Node) -> Tensor | None:
        """What goes into a module that keeps the shape; norms alone would take most of the time of a run."""
        kind, _ = fx_ops.kind(n, self.module)
        if kind not in (Op.NORM, Op.ACT, Op.PASS) or len(n.all_input_nodes) != 1 or n.kwargs:
            return None
        value = self.env[n.all_input_nodes[0]]
        return value if isinstance(value, Tensor) else None


def _twin(model: nn.Module) -> nn.Module:
    """The same network as other objects, the tensors shared: tracing runs a forward, which may write to its module."""
    return copy.deepcopy(model, {id(part): part for part in (*model.parameters(), *model.buffers())})


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


def _vacate(model: nn.Module, graphs: list[fx.Graph], nodes: list[dict[str, fx.Node]], plan: Plan) -> None:
    """Clear away the identities of the blocks' names, which timm keeps where a block could be.

    They do nothing and hold nothing, but are called, and on another value than the block will be.
    """
    names = {name for site in plan.sites for name in (site.value, *(use.user for use in site.uses))}
    needed = {known[name] for known in nodes for name in names if name in known}
    for site in plan.sites:
        target = ("call_module", site.module)
        calls = [node for graph in graphs for node in graph.nodes if (node.op, node.target) == target]
        if not calls or type(model.get_submodule(site.module)) is not nn.Identity or not needed.isdisjoint(calls):
            continue
        for node in calls:
            node.replace_all_uses_with(node.args[0])
            node.graph.erase_node(node)
        parent, _, name = site.module.rpartition(".")
        delattr(model.get_submodule(parent), name)


def _build(model: nn.Module, plan: Plan, weights: Weights | None) -> dict[str, nn.Module]:
    """Every site's block on the network's device and in its dtype; raises SE305 or SE405 for all sites at once."""
    reference = next((part for part in model.parameters() if part.is_floating_point()), None)
    blocks: dict[str, nn.Module] = {}
    mistakes: list[Diagnostic] = []
    for site in plan.sites:
        if _taken(model, site.module) or site.module in blocks:
            text = f"{site.key}: the network already has something called {site.module!r}"
            mistakes.append(Diagnostic("SE405", text, hint="give the rule another 'name'"))
            continue
        try:
            block = site.block.options.build(site.channels)
        except Exception as error:
            mistakes.append(Diagnostic("SE305", f"{site.key}: {error}", hint="change the block's options"))
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


def _uninstall(root: nn.Module, graphs: list[fx.Graph], scope: str, targets: set[str]) -> None:
    """Delete the modules that only erased nodes called; the gate's own module whole, where nothing in it is left."""
    nodes = [node for graph in graphs for node in graph.nodes]
    left = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    scopes = {_scope(node) for node in nodes}
    inside = scope + "."
    if scope and not any(item == scope or item.startswith(inside) for item in (*left, *scopes)):
        targets = {scope}
    for target in targets - left:
        parent, _, name = target.rpartition(".")
        owner = root.get_submodule(parent)
        if name in owner._modules:
            # As timm writes it where there is none: code that asks `if self.se is not None` goes on working.
            del owner._modules[name]
            owner.__dict__[name] = None


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


def _keep_everything(original: nn.Module, changed: fx.GraphModule) -> None:
    """Give the graph module all that the original has and the graph does not use, in the original's order.

    A GraphModule copies only what its graph calls. Heads that run in training alone, buffers that nobody reads and the
    order of parameters (which optimiser states count on) would be lost.
    """
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
