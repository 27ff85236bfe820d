"""The largest values of an fp32 network's tensors on real samples, before it is converted to a type with less range.

Samples are run one by one (or in the file's fixed batch), so that each has its own result, and the memory is that of
one run (`onnxgraph.observe.extremes`).

Measuring every tensor keeps the runtime from fusing nodes, which is slow. So every tensor is measured on the few
samples with the largest inputs. On the other samples only the tensors that came within a factor of NEAR of the limit
are measured. A tensor is missed if it is more than that factor larger on one of the other samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.observe import extremes

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
    reached = extremes(model, values, [samples[index] for index in order[:FIRST]])
    near = [name for name, most in zip(values, reached.max(axis=0), strict=True) if most > limit / NEAR]
    rest = [samples[index] for index in order[FIRST:]]
    later = extremes(model, near, rest) if near and rest else np.empty((0, len(near)))
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
