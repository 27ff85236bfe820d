"""Convert a network's graph to half precision and keep its gates in fp32, like the ONNX pass `precision`.

Weights and maps are fp16 or bf16. A gate's branch, from the mean to the gate, stays fp32: a sum over a map overflows
fp16, and the branch is small. The mean converts while it sums, so no fp32 copy of the map is written. The pool before a
classifier is treated the same way. Inputs and outputs of the network stay fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from sesurgery.lowering.base import Edit
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.gates import POOLS, SQUEEZES, gate_branches, one_position
from sesurgery.lowering.fx.graph import aten
from sesurgery.lowering.precision.half import FATES, KEPT_OPERATORS
from sesurgery.lowering.precision.kept_fp32 import left, named_in
from sesurgery.onnxgraph.scopes import matching

HALVES: dict[torch.dtype, str] = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def to_half(module: fx.GraphModule, dtype: torch.dtype, keep: Sequence[str] = ()) -> tuple[Edit, ...]:
    """Convert weights and maps to `dtype`; the graph is changed in place, its inputs and outputs stay fp32.

    `keep` are globs over modules whose operations stay fp32. Every operation that stays fp32 is returned as an
    unchanged edit with its module.
    """
    gates = gate_branches(module)
    asked = {node: glob for node in module.graph.nodes if node not in gates and (glob := _asked(node, keep))}
    single = dict.fromkeys((*gates, *asked))
    pools = tuple(node for node in _pools(module) if node not in single)
    stayed = (*_stayed(tuple(gates), pools, FATES[HALVES[dtype]]), *_kept(asked))
    kept = {user for node in single for user in node.all_input_nodes if user.op == "get_attr"}
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and node not in kept:
            _retype(module, node, dtype)
        elif node.op == "placeholder":
            _convert_after(module, node, dtype)
    for node in (*single, *pools):
        for source in node.all_input_nodes:
            if source not in single and source not in kept and _floating(source):
                if node.target is aten.mean.dim:
                    node.kwargs = {**node.kwargs, "dtype": torch.float32}
                else:
                    node.replace_input_with(source, _converted(module, node, source, torch.float32))
    for node in (*single, *pools):
        for user in [user for user in node.users if user not in single and user.op != "output"]:
            user.replace_input_with(node, _converted(module, user, node, dtype))
    (end,) = (node for node in module.graph.nodes if node.op == "output")
    for source in end.all_input_nodes:
        if _floating(source) and source not in single:
            end.replace_input_with(source, _converted(module, end, source, torch.float32))
    graph.clean(module)
    return stayed


def _stayed(gates: tuple[fx.Node, ...], pools: tuple[fx.Node, ...], fate: str) -> tuple[Edit, ...]:
    """The operations of gates and the pools outside them, with the same reasons as the ONNX pass."""
    squeezed: dict[fx.Node, str] = {}
    edits: list[Edit] = []
    for node in gates:
        if node.target in SQUEEZES and not one_position(node.all_input_nodes[0]):
            squeezed[node] = graph.path_of(node)
            kind, why = "squeeze", f"the squeeze of a gate: a sum over the whole map {fate}"
        else:
            of = next((squeezed[source] for source in node.all_input_nodes if source in squeezed), None)
            kind, why = ("a_gate", "in a gate") if of is None else ("gate", f"in the gate of squeeze {of!r}")
            why += ": its error would scale a whole map"
            if of is not None:
                squeezed[node] = of
        if node.target not in graph.RESHAPES:
            edits.append(Edit(_named(node), why, changed=False, kind=kind))
    whole = f"{KEPT_OPERATORS['GlobalAveragePool'][1]} {fate}"
    return (*edits, *(Edit(_named(node), whole, changed=False, kind="sum") for node in pools))


def _asked(node: fx.Node, globs: Sequence[str]) -> str | None:
    """The glob by which an operation stays fp32, or None."""
    return matching(graph.path_of(node), globs) if node.op == "call_function" and _floating(node) else None


def _kept(asked: Mapping[fx.Node, str]) -> Iterator[Edit]:
    for node, glob in asked.items():
        if node.target not in graph.RESHAPES:
            yield left(named_in(_named(node), glob))


def _named(node: fx.Node) -> str:
    """`layer1.0.se.fc1 (conv2d)`"""
    return f"{graph.path_of(node)} ({str(node.target).split('.')[1]})"


def _pools(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Global pools outside the gates."""
    pools = (aten.mean.dim, *POOLS)
    return tuple(
        node
        for node in module.graph.nodes
        if node.target in pools and one_position(node) and not one_position(node.args[0]) and "dtype" not in node.kwargs
    )


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _retype(module: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    value = graph.constant(module, node)
    if value is None or not value.is_floating_point():
        return
    made = graph.add_constant(module, node, f"{node.target}_half", value.to(dtype))
    node.replace_all_uses_with(made)


def _converted(module: fx.GraphModule, before: fx.Node, source: fx.Node, dtype: torch.dtype) -> fx.Node:
    with module.graph.inserting_before(before):
        made = module.graph.call_function(aten._to_copy.default, (source,), {"dtype": dtype})
    made.meta["val"] = source.meta["val"].to(dtype)
    return made


def _convert_after(module: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    if not _floating(node):
        return
    with module.graph.inserting_after(node):
        made = module.graph.call_function(aten._to_copy.default, (node,), {"dtype": dtype})
    made.meta["val"] = node.meta["val"].to(dtype)
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
