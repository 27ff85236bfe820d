"""Bytes that a graph's nodes read and write without fusion: an upper bound for a block's memory traffic."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto, helper

from sesurgery.onnxgraph.dataflow import Dataflow


def traffic(model: onnx.ModelProto, batch: int) -> int:
    """Bytes of every node's inputs (with weights) and outputs at a batch size; values of unknown shape are skipped."""
    flow = Dataflow(model)
    return sum(_bytes(flow, name, batch) for node in flow.nodes for name in (*node.input, *node.output) if name)


def _bytes(flow: Dataflow, value: str, batch: int) -> int:
    shape, kind = flow.shape(value), flow.dtype(value)
    if shape is None or kind in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 0
    # Files of this program are dynamic only in the batch.
    sizes = [size if isinstance(size, int) else batch for size in shape]
    return math.prod(sizes) * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
