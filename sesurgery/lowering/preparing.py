"""Prepare a file for passes: simplify it, raise its opset, and fold norms and biases into their convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from sesurgery.diagnostics import fail
from sesurgery.lowering.base import run
from sesurgery.lowering.passes.fold_norms import FoldNorms
from sesurgery.lowering.rewriting import OLDEST_OPSET, obstacle
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.checking import agreeing
from sesurgery.onnxgraph.opset import convert, opset
from sesurgery.onnxgraph.simplify import simplified

CONVERTED = 1e-5
"""The largest accepted difference between the outputs before and after, relative to the largest."""


@dataclass(frozen=True)
class Prepared:
    """The model that passes start from, and notes on how it was prepared."""

    model: ModelProto
    notes: tuple[str, ...] = ()


def prepared(model: ModelProto, *, verify: bool) -> Prepared:
    """The same function in a form that passes can start from; with `verify`, compared in ONNX Runtime.

    Raises SE602 if onnx's converter does not get to the opset, or something else is computed then.
    """
    found = opset(model)
    simple = simplified(model)
    notes = []
    if 0 < found < OLDEST_OPSET:
        converted = convert(simple, OLDEST_OPSET)
        if isinstance(converted, str):
            raise fail("SE602", f"passes need opset {OLDEST_OPSET}: {converted}", "export it again in a newer opset")
        simple = simplified(converted)
        notes.append(f"converted from opset {found} to {OLDEST_OPSET}, the oldest that passes support")
    if len(simple.graph.node) != len(model.graph.node):
        count = f"{len(model.graph.node)} -> {len(simple.graph.node)} nodes"
        notes.append(f"folded constants and removed nodes without effect: {count}")
    simple = agreeing(simple)
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
    text = f"folded norms, biases and factors after {edited} convolutions or linear layers into their weights"
    worst = "".join(f"; largest relative difference {value:.2g}" for value in folded.differences.values())
    return Prepared(folded.model, (*notes, text + worst, *folded.notes))
