"""The largest values of an fp32 network's tensors on real samples, before it is converted to a type with less range.

Each float tensor gets a ReduceMax and a ReduceMin, and only these numbers are outputs of the graph, so the memory is
that of one run. Samples are run one by one (or in the file's fixed batch), so that each has its own result.

Measuring every tensor keeps the runtime from fusing nodes, which is slow. So every tensor is measured on the few
samples with the largest inputs. On the other samples only the tensors that came within a factor of NEAR of the limit
are measured. A tensor is missed if it is more than that factor larger on one of the other samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from sesurgery.diagnostics import fail
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.sessions import session

Feeds = Mapping[str, NDArray[np.generic]]
FIRST = 16
"""Samples on which every tensor is measured."""
NEAR = 64
"""A tensor that stays below 1/64 of the limit on the first samples is not measured on the others."""


@dataclass(frozen=True)
class Reach:
    """The largest absolute value found, and the number of runs in which it was beyond the limit."""

    largest: float
    beyond: int
    runs: int

    def __str__(self) -> str:
        return f"reaches {self.largest:.3g}, too large on {self.beyond} of {self.runs} samples"


def measure(model: onnx.ModelProto, samples: Sequence[Feeds], limit: float) -> dict[str, Reach]:
    """The range of every input and of every float tensor computed from the inputs; raises SE602 if it cannot run."""
    flow = Dataflow(model)
    values = [name for name in (*flow.inputs, *flow.producer) if flow.dtype(name) == onnx.TensorProto.FLOAT]
    values = [name for name in values if name not in flow.weights and flow.is_data(name)]
    if not samples or not values:
        return {}
    order = _largest_first(samples)
    reached = _extremes(model, values, [samples[index] for index in order[:FIRST]])
    near = [name for name, most in zip(values, reached.max(axis=0), strict=True) if most > limit / NEAR]
    rest = [samples[index] for index in order[FIRST:]]
    later = _extremes(model, near, rest) if near and rest else np.empty((0, len(near)))
    found = dict(zip(values, reached.T, strict=True))
    found |= {name: np.concatenate([found[name], more]) for name, more in zip(near, later.T, strict=True)}
    return {name: Reach(float(runs.max()), int((runs > limit).sum()), len(runs)) for name, runs in found.items()}


def _largest_first(samples: Sequence[Feeds]) -> list[int]:
    """The order of the samples: alternately the next by its largest value and the next by its mean square."""
    floats = [[array for array in feeds.values() if array.dtype.kind == "f" and array.size] for feeds in samples]
    peaks = np.array([max((float(np.abs(array).max()) for array in arrays), default=0.0) for arrays in floats])
    powers = np.array([sum(float(np.square(array, dtype=np.float64).mean()) for array in arrays) for arrays in floats])
    turns = np.stack([np.argsort(-peaks, kind="stable"), np.argsort(-powers, kind="stable")], axis=1)
    return list(dict.fromkeys(turns.ravel().tolist()))


def _extremes(model: onnx.ModelProto, values: Sequence[str], samples: Sequence[Feeds]) -> NDArray[np.float64]:
    """The largest absolute value of each tensor on each sample: one row per sample, one column per tensor."""
    session = _session(model, values)
    outputs = [f"{name}{mark}" for mark in (MOST, LEAST) for name in values]
    found: list[NDArray[np.float64]] = []
    for feeds in samples:
        extremes = np.array(session.run(outputs, dict(feeds)), np.float64).reshape(2, len(values))
        # A value that is no number went beyond every limit on its way there.
        found.append(np.nan_to_num(np.abs(extremes).max(axis=0), nan=np.inf))
    return np.stack(found)


MOST, LEAST = ".reaches_most", ".reaches_least"


def _session(model: onnx.ModelProto, values: Sequence[str]) -> onnxruntime.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for operator, mark in (("ReduceMax", MOST), ("ReduceMin", LEAST)):
        for name in values:
            watched.graph.node.append(helper.make_node(operator, [name], [f"{name}{mark}"], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(f"{name}{mark}", onnx.TensorProto.FLOAT, []))
    try:
        return session(watched)
    except Exception as error:  # its exceptions share no base class but Exception
        text = f"ONNX Runtime cannot run the graph, so its ranges cannot be measured: {error}"
        raise fail("SE602", text) from error
