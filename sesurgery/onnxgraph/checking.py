"""What the ONNX checker says of a model that was changed, and the one thing that a change can bring to light.

A file may declare a size of its output that it does not compute. Where inference stops before the output nobody sees
it, and runtimes go by what they compute. Once a pass or a surgeon has made the graph plainer inference gets there, and
the checker rejects a file whose nodes are right.
"""

from __future__ import annotations

from math import prod

import onnx

from sesurgery.onnxgraph.inference import SMALL, without_weights
from sesurgery.onnxgraph.repair import compute_outputs, open_outputs

WEIGHTS_ARE_INPUTS = 3
"""Up to this IR version every weight is listed as an input, too, and the checker asks for it."""


def rejection(model: onnx.ModelProto, *, weights: bool = True) -> str | None:
    """What the checker says against a model, or None; without `weights` large ones are taken to be right.

    The checker takes bytes: with the weights of a large network that takes a quarter of a second, without a hundredth.
    """
    try:
        checked = model if weights or model.ir_version <= WEIGHTS_ARE_INPUTS else _with_given_weights(model)
        onnx.checker.check_model(checked, full_check=True)
    except Exception as error:  # its exceptions share no base class but Exception
        return str(error)
    return None


def with_computed_outputs(model: onnx.ModelProto, *, weights: bool = True) -> onnx.ModelProto | None:
    """A copy that the checker accepts once its outputs declare what inference finds, or open sizes; None if none."""
    for change in (compute_outputs, open_outputs):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        change(copy)
        if rejection(copy, weights=weights) is None:
            return copy
    return None


def agreeing(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or `with_computed_outputs` of one that the checker rejects, where there is such a copy."""
    if rejection(model, weights=False) is None:
        return model
    return with_computed_outputs(model, weights=False) or model


def _with_given_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are inputs: the checker wants the values of a weight, and of an input the type."""
    copy = without_weights(model)
    small = [tensor for tensor in copy.graph.initializer if prod(tensor.dims) <= SMALL]
    known = {value.name for value in copy.graph.input}
    for tensor in copy.graph.initializer:
        if prod(tensor.dims) > SMALL and tensor.name not in known:
            copy.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(small)
    return copy
