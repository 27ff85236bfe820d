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
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.graph import GraphView, NodeFacts, Shape
from sesurgery.planner import Plan, Site
from sesurgery.surgeons import fx_ops
from sesurgery.surgeons.base import Surgeon, Weights
from sesurgery.surgeons.proof import prove
from sesurgery.surgeons.tracing import Leaf, Trace, trace


class FxSurgeon(Surgeon[nn.Module]):
    """View and apply for `torch.nn.Module`s that take one image tensor of `shape` (channels, height, width)."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def view(self, model: nn.Module) -> GraphView:
        traced = trace(_twin(model))
        shapes = self._shapes(traced)
        facts = []
        for node in traced.graph.nodes:
            op, conv = fx_ops.kind(node, traced.root)
            inputs = tuple(value.name for value in _readings(node))
            facts.append(NodeFacts(node.name, op, inputs, _scope(node), shapes.get(node.name), conv))
        return GraphView(facts)

    def leaves(self, model: nn.Module) -> tuple[Leaf, ...]:
        """The modules that tracing had to take as a whole, and why."""
        return trace(_twin(model)).leaves

    def _insert(self, model: nn.Module, plan: Plan, weights: Weights | None) -> nn.Module:
        original = copy.deepcopy(model)
        graph = trace(original).graph
        nodes = {node.name: node for node in graph.nodes}
        blocks = _build(original, plan, weights)
        for site in plan.sites:
            value = nodes[site.value]
            with graph.inserting_after(value):
                scaled = graph.create_node("call_module", site.module, (value,), name=site.module.replace(".", "_"))
            # `out += identity` mutates: exactly the planned readings are rerouted, never a name.
            for use in site.uses:
                _reroute(nodes[use.user], use.slot, scaled)
        for path, block in blocks.items():
            _install(original, path, block)
        changed = fx.GraphModule(original, graph, class_name=type(model).__name__)
        _keep_everything(original, changed)
        return changed

    def _prove(self, changed: nn.Module, plan: Plan) -> None:
        prove(changed, {site.key: site.module for site in plan.sites}, self.shape)

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
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.dim() == 4:
            self.found[n.name] = (int(result.shape[1]), int(result.shape[2]), int(result.shape[3]))
        return result


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


def _build(model: nn.Module, plan: Plan, weights: Weights | None) -> dict[str, nn.Module]:
    """Every site's block on the network's device and in its dtype; raises SE305 or SE405 for all sites at once."""
    reference = next((part for part in model.parameters() if part.is_floating_point()), None)
    blocks: dict[str, nn.Module] = {}
    mistakes: list[Diagnostic] = []
    for site in plan.sites:
        if any(path == site.module for path, _ in model.named_modules()) or site.module in blocks:
            text = f"{site.key}: the network already has a module {site.module!r}"
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
        mistakes += _load(site, block, weights)
    if mistakes:
        raise SesurgeryError(mistakes)
    return blocks


def _load(site: Site, block: nn.Module, weights: Weights | None) -> list[Diagnostic]:
    if weights is None:
        return []
    prefix = site.module + "."
    state = {
        key.removeprefix(prefix): torch.from_numpy(value) for key, value in weights.items() if key.startswith(prefix)
    }
    try:
        block.load_state_dict(state)
    except RuntimeError as error:
        return [Diagnostic("SE401", f"{site.key}: the weights do not fit the block: {error}")]
    return []


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
