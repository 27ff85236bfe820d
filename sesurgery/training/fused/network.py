"""`relu(x gate + identity)` found in a network and computed by one operation; the modules and weights stay the same.

The network is traced, every channel gate's multiplication is found by its dataflow (blocks of any library), and
where a sum and a ReLU follow it and nothing else reads what lies between, the three become `scale_add_relu`. The result
is a graph over the very modules of the network: training one trains the other, and the network's own state dict, spec
and export know nothing of it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from sesurgery.graph import Op, Shape
from sesurgery.graph.gates import channel_gates
from sesurgery.surgeons.fx.modes import counterparts
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.fx.tracing import trace
from sesurgery.training.fused.operation import scale_add_relu

_SUMS = (operator.add, operator.iadd, torch.add)
_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)


@dataclass(frozen=True)
class Fused:
    """A graph over the network's own modules, the places that became one operation, and why others did not."""

    network: nn.Module
    places: tuple[str, ...]
    left: tuple[str, ...]


def fuse(network: nn.Module, shape: Shape) -> Fused:
    """The network in training, for images of `shape` (channels, height, width), with scale, sum and ReLU as one.

    `network` itself stays as it is and shares all its modules with the result. Raises SE403 if it cannot be traced.
    """
    view = FxSurgeon(shape).view(network)
    traced = trace(network, shape)
    graph = traced.training_graph or traced.graph
    nodes = counterparts(traced.graph, graph)
    places: list[str] = []
    left: list[str] = []
    for gate in channel_gates(view):
        node = nodes.get(gate.mul.name)
        found: str | None
        if gate.mul.op is not Op.MUL:
            found = "it is a sum of products"
        else:
            found = "it does not run in training" if node is None else _fuse(node, graph, network, gate.slot)
        where = gate.scope or gate.mul.name
        if found is None:
            places.append(where)
        else:
            left.append(f"{where}: {found}")
    graph.lint()
    return Fused(fx.GraphModule(network, graph, class_name=type(network).__name__), tuple(places), tuple(left))


def _fuse(mul: fx.Node, graph: fx.Graph, network: nn.Module, slot: int) -> str | None:
    """Put one operation in the place of three; the reason where that is not possible."""
    total = _only_user(mul)
    if total is None:
        return "what is scaled has more than one reader"
    if not _is_sum(total):
        return "no sum follows the scaling"
    in_place = total.target in (operator.iadd, "add_")
    if in_place and total.args[0] is not mul:
        return "the sum writes into the shortcut, which others may read"
    relu = _only_user(total)
    if relu is None or not _is_relu(relu, network):
        return "no ReLU follows the sum"
    x, gate = mul.args[slot], mul.args[1 - slot]
    identity = total.args[1] if total.args[0] is mul else total.args[0]
    if not isinstance(identity, fx.Node) or identity is mul:
        return "the sum is not one of two maps"
    with graph.inserting_before(relu):
        fused = graph.call_function(scale_add_relu, (x, gate, identity))
    fused.meta = dict(relu.meta)
    relu.replace_all_uses_with(fused)
    for node in (relu, total, mul):
        graph.erase_node(node)
    return None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_sum(node: fx.Node) -> bool:
    known = (node.op == "call_function" and node.target in _SUMS) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )
    return known and len(node.args) == 2 and not node.kwargs


def _is_relu(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    return (node.op == "call_function" and node.target in _RELUS) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )
