"""A max pool behind padding with zeros, in a form that ONNX Runtime computes as ONNX means it.

A MaxPool's own padding never is the maximum. ONNX Runtime's PadFusion (microsoft/onnxruntime#18136; 1.31.1 has it)
makes a Pad of zeros that, and a window of negative values at the border gets another maximum. It leaves a Pad alone
that names its axes.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, attributes, unique

_AXES_SINCE = 18
"""The opset in which a Pad may name its axes."""


def keep_zeros(model: onnx.ModelProto) -> None:
    """Name all axes of every Pad of constants that only a MaxPool reads; the file means what it meant.

    Below opset 18 nothing is changed.
    """
    graph = model.graph
    if not any(one.domain in ONNX_DOMAINS and one.version >= _AXES_SINCE for one in model.opset_import):
        return
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    readings = Counter(name for node in graph.node for name in node.input)
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {*sizes}
    named: dict[int, str] = {}
    for node in graph.node:
        constant = attributes(node).get("mode", b"constant") == b"constant"
        if node.op_type != "Pad" or not constant or len(node.input) > 3 or node.input[1] not in sizes:
            continue
        if node.output[0] not in pooled or readings[node.output[0]] != 1:
            continue
        rank = sizes[node.input[1]] // 2
        if rank not in named:
            named[rank] = unique("axes_of_padding", taken)
            graph.initializer.append(numpy_helper.from_array(np.arange(rank, dtype=np.int64), named[rank]))
        node.input.extend([""] * (3 - len(node.input)))
        node.input.append(named[rank])
