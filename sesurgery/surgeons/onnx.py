"""The surgeon for ONNX: the same methods as the one for PyTorch, on a file that nobody can trace any more."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto
from torch import nn

from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.graph import GraphView, Shape
from sesurgery.planner import Plan, Site
from sesurgery.surgeons import onnx_opset
from sesurgery.surgeons.base import Surgeon, Weights
from sesurgery.surgeons.grafting import graft
from sesurgery.surgeons.onnx_blocks import Blocks
from sesurgery.surgeons.onnx_edit import Edit
from sesurgery.surgeons.onnx_ops import ONNX_DOMAINS, captured, subgraphs
from sesurgery.surgeons.onnx_shapes import infer
from sesurgery.surgeons.onnx_view import FOLDED, Drawing, Place, draw
from sesurgery.surgeons.tracing import Leaf

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class OnnxSurgeon(Surgeon[onnx.ModelProto]):
    """View and apply for ONNX models whose first input is an image of `shape` (channels, height, width)."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._blocks = Blocks()

    def part(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """What of the model this surgeon operates on: all of it."""
        return model

    def view(self, model: onnx.ModelProto) -> GraphView:
        onnx_opset.version(model)
        return draw(model, self.shape).view

    def leaves(self, model: onnx.ModelProto) -> tuple[Leaf, ...]:
        """The nodes that are left alone as a whole, and why."""
        return tuple(_leaves(model))

    def notes(self, before: onnx.ModelProto, changed: onnx.ModelProto) -> tuple[str, ...]:
        """What surgery did to the file beside inserting and removing, for whoever has to run it."""
        old, new = onnx_opset.version(before), onnx_opset.version(changed)
        raised = [f"the opset was raised from {old} to {new}: a block needs it"] if new != old else []
        if changed.ir_version != before.ir_version:
            raised.append(f"the IR version was raised from {before.ir_version} to {changed.ir_version} with it")
        return tuple(raised)

    def _insert(self, model: onnx.ModelProto, plan: Plan, weights: Weights | None) -> onnx.ModelProto:
        drawing = draw(model, self.shape)
        blocks = _build(plan, weights)
        graphs = {key: self._blocks.site(site, block) for site, (key, block) in zip(plan.sites, blocks, strict=True)}
        opset = onnx_opset.version(model)
        target = max((onnx_opset.needed(graph, opset) for graph in graphs.values()), default=opset)
        if target != opset:
            # The file is another one now, and so are the places of its readings.
            model = onnx_opset.raised(model, target)
            again = draw(model, self.shape)
            if again.view.digest != drawing.view.digest:
                text = f"a block needs opset {target}, and the ONNX file does not stay the same when raised to it"
                raise fail("SE602", text, "export the file anew at that opset, or choose another block")
            drawing = again
        edit = Edit(model)
        for gone in plan.removals:
            edit.remove(gone.output, gone.value, gone.key)
        _require_free(edit, drawing, plan)
        for site, (key, block) in zip(plan.sites, blocks, strict=True):
            if site.value.endswith(FOLDED) and site.value not in edit.tensors:
                text = f"{site.key}: the norm behind {site.value.removesuffix(FOLDED)} is folded into its convolution"
                raise fail("SE403", text, "nothing can go between the two: take the norm, or a file that is not folded")
            fitting = onnx_opset.cast(onnx_opset.lower(graphs[key], target), _dtype(site, drawing))
            places = [place for use in site.uses for place in _places(site, drawing, use.user, use.slot)]
            end = edit.splice(fitting, site.value, site.module, set(dict(block.named_parameters())))
            for place in places:
                edit.reroute(place, end, site.key)
        return edit.result()

    def _prove(self, changed: onnx.ModelProto, plan: Plan) -> None:
        """Every node of every block lies on a way to an output, and keeps its value's shape and type.

        An ONNX graph has no control flow at its top: what an output is computed from is executed. That the block
        itself computes what its module does was compared when it was exported.
        """
        maker = {name: node for node in changed.graph.node for name in node.output}
        reached, pending = set[str](), [value.name for value in changed.graph.output]
        while pending:
            name = pending.pop()
            if name in maker and name not in reached:
                reached.add(name)
                pending.extend((*maker[name].input, *captured(maker[name])))
        values = infer(changed, self.shape)
        mistakes = []
        for site in plan.sites:
            prefix = f"{site.module}/"
            own = [node for node in changed.graph.node if node.name.startswith(prefix)]
            if not own or any(reached.isdisjoint(node.output) for node in own):
                why = "the block's output does not reach the network's output"
                mistakes.append(Diagnostic("SE404", f"{site.key}: {why}", hint="choose another placement"))
                continue
            size = values.map(own[-1].output[0])
            if size is not None and size != (site.channels, site.height, site.width):
                text = f"{site.key}: the block puts out {'x'.join(map(str, size))}"
                mistakes.append(Diagnostic("SE305", text, hint="a block maps [N, C, H, W] to the same shape"))
        if mistakes:
            raise SesurgeryError(mistakes)


def _build(plan: Plan, weights: Weights | None) -> list[tuple[str, nn.Module]]:
    """Every site's key and block, in the plan's order; raises SE305 or SE401 for all sites at once."""
    blocks: list[tuple[str, nn.Module]] = []
    mistakes: list[Diagnostic] = []
    for site in plan.sites:
        try:
            block = site.block.options.build(site.channels)
        except Exception as error:
            mistakes.append(Diagnostic("SE305", f"{site.key}: {error}", hint="change the block's options"))
            continue
        mistakes += graft(site, block, weights)
        blocks.append((site.key, block))
    if mistakes:
        raise SesurgeryError(mistakes)
    return blocks


def _require_free(edit: Edit, drawing: Drawing, plan: Plan) -> None:
    """Raise SE405 for every site whose module's name the file has already."""
    names = edit.names()
    scopes = {node.scope for node in drawing.view if edit.left(node.name)}
    mistakes = []
    for site in plan.sites:
        inside = (f"{site.module}.", f"{site.module}/")
        if site.module in scopes or any(item.startswith(inside) for item in (*names, *scopes)):
            text = f"{site.key}: the network already has something called {site.module!r}"
            mistakes.append(Diagnostic("SE405", text, hint="give the rule another 'name'"))
    if mistakes:
        raise SesurgeryError(mistakes)


def _dtype(site: Site, drawing: Drawing) -> int:
    dtype = drawing.values.dtype(site.value)
    if dtype == TensorProto.UNDEFINED:
        return TensorProto.FLOAT
    if dtype not in _FLOATS:
        name = TensorProto.DataType.Name(dtype).lower()
        raise fail("SE305", f"{site.key}: the map is of type {name}", "blocks work on floating-point maps")
    return dtype


def _places(site: Site, drawing: Drawing, user: str, slot: int) -> tuple[Place, ...]:
    places = drawing.readings[user][slot]
    if not places:
        text = f"{site.key}: {user} reads {site.value} where nothing can be put between them"
        raise fail("SE403", text, "turn this site down with 'within', 'except' or 'stages'")
    return places


def _leaves(model: onnx.ModelProto) -> Iterator[Leaf]:
    functions = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        where = node.name or next(iter(node.output), node.op_type)
        if subgraphs(node):
            yield Leaf(where, f"it holds a subgraph ({node.op_type}): nothing inside is looked at")
        elif (node.domain, node.op_type) in functions:
            yield Leaf(where, f"it is the function {node.op_type} of the file: nothing inside is looked at")
        elif node.domain not in ONNX_DOMAINS:
            yield Leaf(where, f"it is of the domain {node.domain!r}: what it computes is not known")
