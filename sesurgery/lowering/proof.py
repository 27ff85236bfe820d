"""Check that a pass kept the function: compare outputs before and after in float32, and if they differ, in float64.

A trained network can amplify the last digit of a sum by a factor of thousands on inputs that it was not trained for, so
float32 alone decides nothing. If the outputs differ too much, the pass is run in float64. There the outputs must agree,
and the float32 outputs may be off by little more than float32's own error.

If an output ends in a sigmoid or a softmax, the input of that is compared too, because a saturated one hides
differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS

if TYPE_CHECKING:
    from sesurgery.lowering.base import Pass

SATURATING = ("Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "Clip", "Tanh")
AS_FLOAT32 = 16
"""Limit for the error after a pass over the error before it, both float32 against float64."""


@dataclass(frozen=True)
class Judgement:
    """How far a pass moved an output, relative to its largest value, and in what that was computed.

    `outputs` are those of the graph after the pass, in float32.
    """

    difference: float
    outputs: numerics.Values
    exact: bool = False


def judge(
    step: Pass,
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    fed: Sequence[numerics.Feeds],
    explained: float,
    known: numerics.Values | None = None,
) -> Judgement:
    """Compare a graph with what a pass made of it; only what is beyond what is `explained` is computed in float64.

    `known` is what `before` was seen to put out on the same feeds.
    """
    before, after = _watched(before, after)
    names = {value.name for value in before.graph.output}
    was = known if known is not None and known.keys() >= names else numerics.outputs_of_all(before, fed)
    now = numerics.outputs_of_all(after, fed)
    was = {name: was[name] for name in names}
    plain = Judgement(numerics.difference(was, now), now)
    if plain.difference <= explained or step.needs_samples:
        return plain
    # Torch and the reference are imported only for the few graphs that need them.
    from sesurgery.onnxgraph import exact

    try:
        wide = exact.widened(before)
        true = exact.outputs(wide, fed)
        again = _watched(wide, step.apply(wide).model)[1]
        difference = numerics.difference(true, exact.outputs(again, fed))
    except Exception:  # the reference does not know every operator
        return plain
    true = {name: values.astype(was[name].dtype) for name, values in true.items()}
    allowed = max(explained, AS_FLOAT32 * numerics.difference(true, was))
    return Judgement(difference, now, exact=True) if numerics.difference(true, now) <= allowed else plain


def _watched(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Copies that also output the input of each output's final sigmoid or softmax, if both graphs have it."""
    values = [name for name in _before_curves(before) if name in _before_curves(after)]
    return _with_outputs(before, values), _with_outputs(after, values)


def _before_curves(model: onnx.ModelProto) -> dict[str, int]:
    """The inputs of the final sigmoid or softmax of each output, with the outputs' element types."""
    outputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    return {
        node.input[0]: outputs[node.output[0]]
        for node in model.graph.node
        if node.op_type in SATURATING and node.domain in ONNX_DOMAINS and node.output[0] in outputs
        if node.input[0] in made and node.input[0] not in outputs
    }


def _with_outputs(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    if not values:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    types = _before_curves(model)
    for name in values:
        value = copy.graph.output.add(name=name)
        value.type.tensor_type.elem_type = types[name]
    kept = [value for value in copy.graph.value_info if value.name not in values]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(kept)
    return copy
