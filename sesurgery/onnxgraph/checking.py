"""What the ONNX checker says of a model that was changed, and the one thing that a change can bring to light.

A file may declare a size of its output that it does not compute. Where inference stops before the output nobody sees
it, and runtimes go by what they compute. Once a pass or a surgeon has made the graph plainer inference gets there, and
the checker rejects a file whose nodes are right.
"""

from __future__ import annotations

import onnx

from sesurgery.onnxgraph.repair import compute_outputs, open_outputs


def rejection(model: onnx.ModelProto) -> str | None:
    """What the checker says against a model, or None."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # its exceptions share no base class but Exception
        return str(error)
    return None


def with_computed_outputs(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy that the checker accepts once its outputs declare what inference finds, or open sizes; None if none."""
    for change in (compute_outputs, open_outputs):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        change(copy)
        if rejection(copy) is None:
            return copy
    return None


def agreeing(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or `with_computed_outputs` of one that the checker rejects, where there is such a copy."""
    return model if rejection(model) is None else with_computed_outputs(model) or model
