"""Proof that every inserted block takes part: an output is computed from it, and its map keeps type and shape.

An ONNX graph has no control flow at its top: what an output is computed from is executed. That a block itself computes
what its module does was compared when it was exported.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto

from sesurgery.diagnostics import Diagnostic, SesurgeryError
from sesurgery.graph import Shape
from sesurgery.onnxgraph.nodes import captured
from sesurgery.onnxgraph.shapes import infer
from sesurgery.planner import Plan


def prove(changed: onnx.ModelProto, plan: Plan, shape: Shape) -> None:
    """Raise SE404 (or SE305 for a changed shape) naming each site whose block does not take part."""
    maker = {name: node for node in changed.graph.node for name in node.output}
    reached, pending = set[str](), [value.name for value in changed.graph.output]
    while pending:
        name = pending.pop()
        if name in maker and name not in reached:
            reached.add(name)
            pending.extend((*maker[name].input, *captured(maker[name])))
    values = infer(changed, shape)
    mistakes = []
    inside = inside_of(changed, {site.module for site in plan.sites})
    for site in plan.sites:
        own = inside[site.module]
        if not own or any(reached.isdisjoint(node.output) for node in own):
            why = "the block's output does not reach the network's output"
            mistakes.append(Diagnostic("SE404", f"{site.key}: {why}", hint="choose another placement"))
            continue
        size = values.map(own[-1].output[0])
        if size is not None and size != site.shape:
            text = f"{site.key}: the block puts out {'x'.join(map(str, size))}"
            mistakes.append(Diagnostic("SE305", text, hint="a block maps [N, C, H, W] to the same shape"))
    if mistakes:
        raise SesurgeryError(mistakes)


def inside_of(model: onnx.ModelProto, modules: set[str]) -> dict[str, list[NodeProto]]:
    """The nodes of each module, which are called `MODULE/...`, in the file's order."""
    found: dict[str, list[NodeProto]] = {module: [] for module in modules}
    for node in model.graph.node:
        for at, letter in enumerate(node.name):
            if letter == "/" and node.name[:at] in found:
                found[node.name[:at]].append(node)
    return found
