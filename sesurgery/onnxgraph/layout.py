"""Which maps of an ONNX file keep their channels last.

A converter from TensorFlow leaves islands of [N, H, W, C] between two Transposes, and often the whole input so. A map
there has the same channels, height and width as any other; only a block, which works on [N, C, H, W], has to be turned
to it and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import NodeProto

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)

# What gives a map of the layout that it reads.
_KEEP = frozenset(
    {
        "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish",
        "Tanh", "Gelu", "Mish", "Erf", "Softplus", "Softsign", "ThresholdedRelu", "Exp", "Sqrt", "Neg", "Abs", "Pow",
        "Reciprocal", "Identity", "Dropout", "Cast", "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Where",
        "Concat", "Pad", "Slice", "Split", "Resize", "Upsample", "ReduceMean", "ReduceMax", "MatMul",
        "LayerNormalization", "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip
# torch's own channels-last parts: there the Transposes are the network's, not a converter's.
_CHANNEL_STEPS = frozenset({"MatMul", "LayerNormalization", "Gemm"})


def turned(node: NodeProto) -> tuple[int, ...] | None:
    """The order that a Transpose puts the dimensions in; None for any other node."""
    if node.op_type != "Transpose":
        return None
    return next((tuple(item.ints) for item in node.attribute if item.name == "perm"), None)


def channels_last(
    nodes: Iterable[NodeProto], given: Iterable[str], rank: Callable[[str], int | None]
) -> tuple[frozenset[str], bool]:
    """The values that keep their channels last, and whether a converter left them so, not the network's author.

    `given` are the graph's inputs that do; `rank` tells a value's number of dimensions.
    """
    last = set(given)
    converters = True
    for node in nodes:
        order = turned(node)
        if order is not None:
            if order == TO_LAST and node.input[0] not in last and rank(node.input[0]) == 4:
                last.add(node.output[0])
        elif node.op_type in _KEEP | _CHANNEL_STEPS and any(name in last for name in node.input):
            converters = converters and node.op_type not in _CHANNEL_STEPS
            last.update(name for name in node.output if name and rank(name) in (4, None))
    return frozenset(last), converters
