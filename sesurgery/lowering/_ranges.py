"""What the values of an fp32 network reach on real samples: seen before it is computed in a type with less range.

Each float value gets a ReduceMax and a ReduceMin, and only these numbers leave the graph: the memory is that of one
run, whatever the network. Samples go in one by one (or as many as the file fixes), so that each is judged by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from sesurgery.diagnostics import fail
from sesurgery.lowering._dataflow import Dataflow

Feeds = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Reach:
    """The largest absolute value found, and on how many of the runs made it was beyond the limit asked about."""

    largest: float
    beyond: int
    runs: int

    def __str__(self) -> str:
        return f"reaches {self.largest:.3g}, too large on {self.beyond} of {self.runs} samples"


def measure(model: onnx.ModelProto, samples: Iterable[Feeds], limit: float) -> dict[str, Reach]:
    """What every float value computed from the inputs, and every input, reaches; raises SE602 where it cannot run."""
    flow = Dataflow(model)
    values = [name for name in (*flow.inputs, *flow.producer) if flow.dtype(name) == onnx.TensorProto.FLOAT]
    values = [name for name in values if name not in flow.weights and flow.is_data(name)]
    session = _session(model, values)
    outputs = [f"{name}{mark}" for mark in (MOST, LEAST) for name in values]
    found: list[NDArray[np.float64]] = []
    for feeds in samples:
        extremes = np.array(session.run(outputs, dict(feeds)), np.float64).reshape(2, len(values))
        # A value that is no number went beyond every limit on its way there.
        found.append(np.nan_to_num(np.abs(extremes).max(axis=0), nan=np.inf))
    if not found:
        return {}
    reached = np.stack(found)
    largest, beyond = reached.max(axis=0), (reached > limit).sum(axis=0)
    return {
        name: Reach(float(most), int(count), len(found))
        for name, most, count in zip(values, largest, beyond, strict=True)
    }


MOST, LEAST = ".reaches_most", ".reaches_least"


def _session(model: onnx.ModelProto, values: list[str]) -> onnxruntime.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for operator, mark in (("ReduceMax", MOST), ("ReduceMin", LEAST)):
        for name in values:
            watched.graph.node.append(helper.make_node(operator, [name], [f"{name}{mark}"], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(f"{name}{mark}", onnx.TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but Exception
        text = f"ONNX Runtime cannot run the graph, so that its ranges cannot be measured: {error}"
        raise fail("SE602", text) from error
