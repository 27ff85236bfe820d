"""A file as passes take it: simplified, in a new enough opset, norms and biases part of their convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from sesurgery.diagnostics import fail
from sesurgery.lowering.base import run
from sesurgery.lowering.passes.fold_norms import FoldNorms
from sesurgery.lowering.rewriting import OLDEST_OPSET, obstacle
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.opset import convert, opset
from sesurgery.onnxgraph.simplify import simplified

CONVERTED = 1e-5
"""How far the outputs of a file and of what was made of it may be apart, relative to the largest."""


@dataclass(frozen=True)
class Prepared:
    """The model that passes start from, and what was done to the file before them."""

    model: ModelProto
    notes: tuple[str, ...] = ()


def prepared(model: ModelProto, *, verify: bool) -> Prepared:
    """The same function in a form that passes can start from, compared in ONNX Runtime with `verify`.

    Raises SE602 where onnx's converter does not get to the opset, or something else is computed then.
    """
    found = opset(model)
    simple = simplified(model)
    notes = []
    if 0 < found < OLDEST_OPSET:
        converted = convert(simple, OLDEST_OPSET)
        if isinstance(converted, str):
            raise fail("SE602", f"passes need opset {OLDEST_OPSET}: {converted}", "export it again in a newer opset")
        simple = simplified(converted)
        notes.append(f"converted from opset {found} to {OLDEST_OPSET}, the oldest that passes take")
    if len(simple.graph.node) != len(model.graph.node):
        count = f"{len(model.graph.node)} -> {len(simple.graph.node)} nodes"
        notes.append(f"constants were folded and nodes that do nothing taken out: {count}")
    if verify and notes:
        fed = numerics.feeds(model)
        difference = numerics.difference(numerics.outputs(model, fed), numerics.outputs(simple, fed))
        if not difference <= CONVERTED:
            text = f"that changed an output by {difference:.2g} of its largest value"
            raise fail("SE602", f"{'; '.join(notes)}: {text}", "export it again in a newer opset")
        notes[-1] += f"; largest relative difference {difference:.2g}"
    if obstacle(simple) is not None:
        return Prepared(simple, tuple(notes))
    folded = run(simple, [FoldNorms()], verify=verify)
    edited = len(folded.edits)
    if not edited:
        return Prepared(simple, tuple(notes))
    text = f"norms, biases and factors behind {edited} convolutions or linear layers are part of their weights"
    worst = "".join(f"; largest relative difference {value:.2g}" for value in folded.differences.values())
    return Prepared(folded.model, (*notes, text + worst, *folded.notes))
