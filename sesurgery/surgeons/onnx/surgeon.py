"""The surgeon for ONNX files, with the same methods as the one for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto
from torch import nn

from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.graph import GraphView, Shape
from sesurgery.onnxgraph import opset as onnx_opset
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, subgraphs
from sesurgery.planner import FOR_VOLUMES, Plan, Removal, Site
from sesurgery.surgeons.base import Leaf, Outline, Surgeon, Weights
from sesurgery.surgeons.grafting import graft
from sesurgery.surgeons.onnx.blocks import Blocks
from sesurgery.surgeons.onnx.edit import GraphEditor
from sesurgery.surgeons.onnx.proof import prove
from sesurgery.surgeons.onnx.view import FOLDED, Drawing, Place, draw

_INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class _Opened:
    """A file's model and the drawing of it; `GraphEditor` changes a copy."""

    model: onnx.ModelProto
    drawing: Drawing

    @property
    def view(self) -> GraphView:
        return self.drawing.view


class OnnxSurgeon(Surgeon[onnx.ModelProto, _Opened]):
    """View and apply for ONNX models whose first input is an image of `shape` (channels, height, width).

    With (channels, time, height, width) it is a clip, for networks of 3-d convolutions.

    `told` is called with the number of blocks that are ready to go in, and that of all.
    """

    def __init__(self, shape: Shape, told: Callable[[int, int], None] | None = None) -> None:
        self.shape = shape
        self._told = told or _untold
        self._blocks = Blocks()

    def part(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The part of the model that this surgeon changes: all of it."""
        return model

    def look(self, model: onnx.ModelProto, called: tuple[str, ...] = ()) -> Outline:
        opened = self._opened(model)
        return Outline(opened.view, tuple(_leaves(model, opened.drawing.unread)))

    def notes(self, before: onnx.ModelProto, changed: onnx.ModelProto) -> tuple[str, ...]:
        """Other changes that surgery made to the file, for those who run it."""
        old, new = onnx_opset.opset(before), onnx_opset.opset(changed)
        raised = [f"the opset was raised from {old} to {new}: a block needs it"] if new != old else []
        if changed.ir_version != before.ir_version:
            raised.append(f"the IR version was raised from {before.ir_version} to {changed.ir_version} with it")
        return tuple(raised)

    def _open(self, model: onnx.ModelProto, plan: Plan) -> _Opened:
        return self._opened(model)

    def _opened(self, model: onnx.ModelProto) -> _Opened:
        onnx_opset.changeable_opset(model)
        return _Opened(model, draw(model, self.shape))

    def _insert(self, opened: _Opened, plan: Plan, weights: Weights | None) -> onnx.ModelProto:
        model, drawing = opened.model, opened.drawing
        blocks = _build(plan, weights)
        graphs = {}
        for done, (site, (key, block)) in enumerate(zip(plan.sites, blocks, strict=True)):
            self._told(done, len(blocks))
            graphs[key] = self._blocks.site(site, block)
        self._told(len(blocks), len(blocks))
        opset = onnx_opset.changeable_opset(model)
        target = max((onnx_opset.needed(graph, opset) for graph in graphs.values()), default=opset)
        if target != opset:
            # The file is another one now, and so are the places of its readings.
            model = onnx_opset.raised(model, target)
            again = draw(model, self.shape)
            if again.view.digest != drawing.view.digest:
                text = f"a block needs opset {target}, and the ONNX file does not stay the same when raised to it"
                raise fail("SE602", text, "export the file again at that opset, or choose another block")
            drawing = again
        edit = GraphEditor(model)
        dequantised = _dequantised(drawing)
        for gone in plan.removals:
            # In a quantised file the gate scales one of the value's dequantised readings: its readers get that one.
            copies = dequantised.get(gone.value, ())
            own = (edit.read_at(at) for at in _scaled(gone, drawing) if edit.read_at(at) in copies)
            edit.remove(gone.output, next(own, gone.value), gone.key, dequantised.get(gone.output, ()))
        _require_free(edit, drawing, plan)
        for site, (key, block) in zip(plan.sites, blocks, strict=True):
            if site.value.endswith(FOLDED) and site.value not in edit.tensors:
                text = f"{site.key}: the norm behind {site.value.removesuffix(FOLDED)} is folded into its convolution"
                raise fail("SE403", text, "nothing can go between the two: take the norm, or a file that is not folded")
            fitting = onnx_opset.cast(onnx_opset.lower(graphs[key], target), _dtype(site, drawing))
            places = [place for use in site.uses for place in _places(site, drawing, use.user, use.slot)]
            if not all(map(edit.reads, places)):
                text = f"{site.key}: what reads {site.value} is removed with the block around it"
                raise fail("SE403", text, "remove or replace the outer block alone: turn this site down with 'except'")
            source, places = _between(site, places, drawing, edit)
            last = site.value in drawing.values.last
            end = edit.splice(fitting, source, site.module, set(dict(block.named_parameters())), last=last)
            for place in places:
                edit.reroute(place, end, site.key)
        return edit.result()

    def _prove(self, changed: onnx.ModelProto, plan: Plan) -> None:
        prove(changed, plan, self.shape)


def _untold(done: int, total: int) -> None:
    return


def _build(plan: Plan, weights: Weights | None) -> list[tuple[str, nn.Module]]:
    """Every site's key and block, in the plan's order; raises SE305 or SE401 for all sites at once."""
    blocks: list[tuple[str, nn.Module]] = []
    mistakes: list[Diagnostic] = []
    for site in plan.sites:
        if site.unfit:
            mistakes.append(Diagnostic("SE305", f"{site.key}: {site.unfit}", hint=FOR_VOLUMES, site=site.key))
            continue
        try:
            block = site.build()
        except Exception as error:
            mistakes.append(Diagnostic("SE305", f"{site.key}: {error}", hint="change the block's options"))
            continue
        mistakes += graft(site, block, weights)
        blocks.append((site.key, block))
    if mistakes:
        raise SesurgeryError(mistakes)
    return blocks


def _require_free(edit: GraphEditor, drawing: Drawing, plan: Plan) -> None:
    """Raise SE405 for every site whose module's name the file has already."""
    scopes = {node.scope for node in drawing.view if edit.left(node.name)}
    taken = set(scopes)
    for name in (*edit.names(), *scopes):
        taken.update(name[:at] for at, letter in enumerate(name) if letter in "./")
    mistakes = []
    for site in plan.sites:
        if site.module in taken:
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


def _dequantised(drawing: Drawing) -> dict[str, list[str]]:
    """The dequantised values that stand for each value of the view."""
    dequantised: dict[str, list[str]] = {}
    for name in drawing.quantised:
        dequantised.setdefault(drawing.true(name), []).append(name)
    return dequantised


def _scaled(gone: Removal, drawing: Drawing) -> tuple[Place, ...]:
    """The place where the removed product reads its value."""
    slots = drawing.view[gone.output].inputs
    return tuple(
        place
        for slot, source in enumerate(slots)
        if source.name == gone.value
        for place in drawing.readings[gone.output][slot]
    )


def _between(site: Site, places: list[Place], drawing: Drawing, edit: GraphEditor) -> tuple[str, list[Place]]:
    """What the site's block reads, and the readings that get its output.

    In a quantised file that is the dequantised value, where all the site's readers read it. Where some read the value
    itself, the block stands in front of the quantising node, which then quantises the block's output.
    """
    quantiser = {place: drawing.quantised.get(edit.read_at(place)) for place in places}
    nodes = dict.fromkeys(quantiser.values())
    if set(nodes) <= {None}:
        return site.value, places
    if len(nodes) == 1:
        return edit.read_at(places[0]), places
    theirs = {index for index in nodes if index is not None}
    others = [
        user
        for user, slots in drawing.readings.items()
        for slot in slots
        for place in slot
        if place not in quantiser and edit.reads(place) and drawing.quantised.get(edit.read_at(place)) in theirs
    ]
    if others:
        text = f"{site.key}: {others[0]} reads the same quantised value and is not to read the block"
        raise fail("SE403", text, "turn this site down with 'within', 'except' or 'stages'")
    return site.value, [
        *(place for place, index in quantiser.items() if index is None),
        *(Place(index, 0) for index in sorted(theirs)),
    ]


def _leaves(model: onnx.ModelProto, unread: tuple[int, ...]) -> Iterator[Leaf]:
    ends = frozenset(unread)
    functions = {(function.domain, function.name) for function in model.functions}
    for index, node in enumerate(model.graph.node):
        where = node.name or next(iter(node.output), node.op_type)
        if subgraphs(node):
            yield Leaf(where, f"it holds a subgraph ({node.op_type}): nothing inside is looked at", "subgraph")
        elif (node.domain, node.op_type) in functions:
            yield Leaf(where, f"it is the function {node.op_type} of the file: nothing inside is looked at", "function")
        elif node.domain not in ONNX_DOMAINS:
            yield Leaf(where, f"it is of the domain {node.domain!r}: what it computes is not known", "domain")
        elif node.op_type in _INTEGER:
            why = f"{node.op_type} computes on integers: take a file with QuantizeLinear, DequantizeLinear"
            yield Leaf(where, why, "integers")
        elif index in ends:
            why = "nobody reads what it computes: neither it nor what only it reads carries a block"
            yield Leaf(where, why, "unread")
