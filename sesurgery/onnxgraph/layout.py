"""Which maps of an ONNX file are channels last.

Converters from TensorFlow leave parts of a graph in [N, H, W, C] between two Transposes, often including the input.
Such a map has channels, height and width like any other. Only a block, which works on [N, C, H, W], needs a Transpose
before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import NodeProto

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)

# Operators whose output has the layout of their input.
_KEEP = frozenset(
    {
        "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish",
        "Tanh", "Gelu", "Mish", "Erf", "Softplus", "Softsign", "ThresholdedRelu", "Exp", "Sqrt", "Neg", "Abs", "Pow",
        "Reciprocal", "Identity", "Dropout", "Cast", "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Where",
        "Concat", "Pad", "Slice", "Split", "Resize", "Upsample", "ReduceMean", "ReduceMax", "MatMul",
        "LayerNormalization", "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip
# Channels-last parts that torch itself writes: these Transposes belong to the network, not to a converter.
_CHANNEL_STEPS = frozenset({"MatMul", "LayerNormalization", "Gemm"})


def turned(node: NodeProto) -> tuple[int, ...] | None:
    """The permutation of a Transpose; None for any other node."""
    if node.op_type != "Transpose":
        return None
    return next((tuple(item.ints) for item in node.attribute if item.name == "perm"), None)


def channels_last(
    nodes: Iterable[NodeProto], given: Iterable[str], rank: Callable[[str], int | None]
) -> tuple[frozenset[str], bool]:
    """The channels-last values, and whether a converter caused them rather than the network's author.

    `given` are the channels-last inputs of the graph; `rank` gives a value's number of dimensions.
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
