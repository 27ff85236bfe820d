"""How many values an int8 file clips at the ends of its ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.observe import observe
from sesurgery.onnxgraph.scopes import scope_of

LOST = 0.05
"""A range saturates if clipping loses more than this share of the values' root mean square."""
CODES = {"int8": (-128, 127), "uint8": (0, 255)}


@dataclass(frozen=True)
class Clipped:
    """A quantizer: the value it reads, the module of that value, the share of clipped values, and the loss."""

    value: str
    scope: str
    share: float
    lost: float


def clipping(model: onnx.ModelProto, feeds: Iterable[numerics.Feeds]) -> tuple[Clipped, ...]:
    """Every quantizer of a map in the order of the graph, over all feeds, computed in float."""
    flow = Dataflow(model)
    quantizers = [node for node in flow.nodes if _ranged(node, flow) is not None]
    totals = np.zeros((len(quantizers), 4))
    for values in observe(model, [node.input[0] for node in quantizers], feeds, flow) if quantizers else ():
        for place, node in enumerate(quantizers):
            totals[place] += _counted(values[node.input[0]], *(_ranged(node, flow) or (0.0, 0.0)))
    return tuple(
        Clipped(node.input[0], _scope(node, flow), beyond / max(count, 1), float(np.sqrt(lost / power)) if power else 0)
        for node, (count, beyond, lost, power) in zip(quantizers, totals.tolist(), strict=True)
    )


def first_saturated(found: Iterable[Clipped]) -> Clipped | None:
    """The first quantizer that loses too much; later ones read its result."""
    return next((each for each in found if each.lost > LOST), None)


def _counted(values: NDArray[np.generic], low: float, high: float) -> tuple[int, int, float, float]:
    exact = values.astype(np.float64)
    apart = exact - exact.clip(low, high)
    return exact.size, int((apart != 0).sum()), float((apart**2).sum()), float((exact**2).sum())


def _ranged(node: NodeProto, flow: Dataflow) -> tuple[float, float] | None:
    """The ends of a quantizer's range, half a step beyond its last codes; None of what is none, or of a weight's."""
    if node.op_type != "QuantizeLinear" or not flow.is_data(node.input[0]) or len(node.input) < 3:
        return None
    scale, zero = flow.constant(node.input[1]), flow.constant(node.input[2])
    if scale is None or zero is None or scale.size != 1 or zero.dtype.name not in CODES:
        return None
    low, high = CODES[zero.dtype.name]
    step = float(scale.ravel()[0])
    middle = float(zero.ravel()[0])
    return (low - 0.5 - middle) * step, (high + 0.5 - middle) * step


def _scope(node: NodeProto, flow: Dataflow) -> str:
    maker = flow.producer.get(node.input[0])
    return (scope_of(maker) or maker.name) if maker is not None else "the input"
