"""What an ONNX node is in the neutral graph: its kind, and a convolution's geometry."""

from __future__ import annotations

from typing import Any

from onnx import NodeProto

from sesurgery.graph import ConvFacts, Op
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, attributes
from sesurgery.onnxgraph.shapes import Values

_KINDS: dict[str, Op] = {
    **dict.fromkeys(
        (
            "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish",
            "Tanh", "Gelu", "Mish", "Softplus", "Softsign", "ThresholdedRelu",
        ),
        Op.ACT,
    ),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LRN"), Op.NORM
    ),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), Op.POOL),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), Op.GLOBAL_POOL),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"), Op.RESHAPE),
    **dict.fromkeys(("Identity", "Dropout", "Cast"), Op.PASS),
    "Concat": Op.CONCAT,
}  # fmt: skip


def kind(node: NodeProto, data: tuple[str, ...], axes: tuple[int, ...] | None, values: Values) -> Op:
    """The node's kind; `data` are its inputs that depend on the network's, `axes` what a reduction goes over."""
    if node.domain not in ONNX_DOMAINS:
        return Op.OTHER
    name = node.op_type
    if name == "Conv":
        return Op.CONV if len(data) == 1 and len(values.dims(node.input[1]) or ()) == values.map_rank else Op.OTHER
    if name in ("Gemm", "MatMul"):
        return Op.LINEAR if len(data) == 1 and data[0] == node.input[0] else Op.OTHER
    if name in ("Add", "Sum"):
        # A sum with a constant is a bias or part of an activation: no two paths meet in it.
        return Op.ADD if len(data) > 1 else Op.OTHER
    if name == "Mul":
        return Op.MUL
    if name == "Transpose" and values.converters and (node.output[0] in values.last) != (node.input[0] in values.last):
        # The same map in the other layout: a converter's turn, not the network's.
        return Op.PASS
    if name in ("ReduceMean", "ReduceMax"):
        rank = len(values.dims(node.input[0]) or ())
        inner = [1, 2] if node.input[0] in values.last else list(range(2, rank))
        spatial = rank == values.map_rank and axes is not None and sorted(axis % rank for axis in axes) == inner
        return Op.GLOBAL_POOL if spatial else Op.OTHER
    return _KINDS.get(name, Op.OTHER)


def convolution(node: NodeProto, values: Values) -> ConvFacts | None:
    """The geometry of a convolution over the axes of a map."""
    weight = values.dims(node.input[1])
    if weight is None or len(weight) != values.map_rank or None in weight[:2]:
        return None
    given, axes = attributes(node), len(weight) - 2
    groups = int(given.get("group", 1))
    kernel = _sizes(given.get("kernel_shape", weight[2:]))
    dilation = _sizes(given.get("dilations", (1,) * axes))
    padding = _sizes(given.get("pads", (0,) * axes))[:axes]
    if given.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        padding = tuple(step * (size - 1) // 2 for step, size in zip(dilation, kernel, strict=True))
    return ConvFacts(
        kernel=kernel,
        stride=_sizes(given.get("strides", (1,) * axes)),
        padding=padding,
        dilation=dilation,
        groups=groups,
        in_channels=int(weight[1] or 0) * groups,
        out_channels=int(weight[0] or 0),
    )


def _sizes(given: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in given)
