"""What a network in an ONNX file costs, by the same convention as a network in PyTorch."""

from __future__ import annotations

from math import prod

import onnx
from onnx import TensorProto

from sesurgery.accounting import Cost
from sesurgery.graph import Shape
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS
from sesurgery.onnxgraph.shapes import Values, image_input, infer

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def cost(model: onnx.ModelProto, shape: Shape) -> Cost:
    """Floating-point weights except scalars, and MACs of convolutions and matrix products for one image."""
    values = infer(model, shape)
    batch = (values.dims(image_input(model).name) or (1,))[0] or 1
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type in _FLOATS and tensor.dims]
    constants = [item.t for node in model.graph.node if node.op_type == "Constant" for item in node.attribute]
    weights += [tensor for tensor in constants if tensor.data_type in _FLOATS and tensor.dims]
    macs = sum(_macs(node, values) for node in model.graph.node if node.domain in ONNX_DOMAINS)
    return Cost(sum(prod(tensor.dims) for tensor in weights), macs // batch)


def _macs(node: onnx.NodeProto, values: Values) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    first, second, out = (values.dims(name) for name in (*node.input[:2], node.output[0]))
    if not first or not second or not out or None in (*first, *second, *out):
        return 0
    if node.op_type == "Conv":
        return _product(out) * _product(second[1:])
    if node.op_type == "ConvTranspose":
        return _product(first) * _product(second[1:])
    turned = any(item.name == "transA" and item.i for item in node.attribute)
    return _product(out) * int((first[-2] if turned else first[-1]) or 0)


def _product(sizes: tuple[int | None, ...]) -> int:
    return prod(size or 0 for size in sizes)
