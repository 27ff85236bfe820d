"""Small networks with channel attention, odd but valid, as ONNX graphs of many opsets, types and spellings."""

import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = (TensorProto.FLOAT,) * 5 + (TensorProto.FLOAT16,) * 2 + (TensorProto.DOUBLE,)


class Net:
    """A graph that grows node by node."""

    def __init__(self, rng: random.Random, kind: int) -> None:
        self.rng, self.kind = rng, kind
        self.dtype = helper.tensor_dtype_to_np_dtype(kind)
        self.numbers = np.random.default_rng(rng.getrandbits(32))
        self.opset = rng.choice((11, 13, 17, 18, 20, 21))
        self.nodes, self.weights = [], []

    def weight(self, array) -> str:
        name = f"w{len(self.weights) + len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(array), name)
        if self.rng.random() < 0.1:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(tensor)
        return name

    def random(self, *shape: int) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.weight((self.numbers.normal(size=shape) / fan**0.5).astype(self.dtype))

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        out = f"v{len(self.nodes)}_{len(self.weights)}"
        name = f"{operator}_{len(self.nodes)}" if self.rng.random() < 0.9 else ""
        self.nodes.append(helper.make_node(operator, inputs, [out], name=name, **attributes))
        if self.rng.random() < 0.05:
            self.nodes.append(helper.make_node("Identity", [out], [out + "_i"], name=out + "_id"))
            return out + "_i"
        return out

    def conv(self, x: str, channels: int, wide: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        inputs = [x, self.random(wide, channels // groups, kernel, kernel)]
        if self.rng.random() < 0.7:
            inputs.append(self.random(wide))
        pads = [kernel // 2] * 4
        return self.add("Conv", *inputs, kernel_shape=[kernel] * 2, pads=pads, strides=[stride] * 2, group=groups)

    def act(self, x: str) -> str:
        how = self.rng.choice(("Relu", "Sigmoid", "Swish", "HardSwish", "Identity"))
        if how == "Swish":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if how == "HardSwish":
            return self.add("Mul", x, self.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))
        return x if how == "Identity" else self.add(how, x)

    def squeeze(self, x: str) -> str:
        if self.rng.random() < 0.4:
            return self.add(self.rng.choice(("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool")), x)
        axes = self.rng.choice(([2, 3], [-1, -2], [-2, -1]))
        if self.opset >= 18:
            return self.add("ReduceMean", x, self.weight(np.array(axes, np.int64)), keepdims=1)
        return self.add("ReduceMean", x, axes=axes, keepdims=1)

    def attention(self, x: str, channels: int) -> str:
        hidden = self.rng.choice((1, 2, channels))
        z = self.squeeze(x)
        if self.rng.random() < 0.5:
            z = self.conv(z, channels, hidden, 1)
            z = self.conv(self.act(z), hidden, channels, 1)
        else:
            z = (
                self.add("Flatten", z)
                if self.rng.random() < 0.6
                else self.add("Reshape", z, self.weight(np.array([-1, channels], np.int64)))
            )
            for before, after in ((channels, hidden), (hidden, channels)):
                if self.rng.random() < 0.5:
                    z = self.add("Gemm", z, self.random(after, before), self.random(after), transB=1)
                else:
                    z = self.add("MatMul", z, self.random(before, after))
                    z = self.add("Add", z, self.random(after)) if self.rng.random() < 0.7 else z
                z = self.add("Relu", z) if after == hidden else z
            z = self.add("Reshape", z, self.weight(np.array([-1, channels, 1, 1], np.int64)))
        gate = self.rng.choice(("Sigmoid", "Sigmoid", "HardSigmoid", "Clip"))
        if gate == "Clip":
            three = self.weight(np.array(3, self.dtype))
            low, high = self.weight(np.array(0, self.dtype)), self.weight(np.array(6, self.dtype))
            z = self.add("Div", self.add("Clip", self.add("Add", z, three), low, high), high)
        else:
            z = self.add(gate, z)
        return self.add("Mul", *((x, z) if self.rng.random() < 0.6 else (z, x)))


def net(rng: random.Random) -> onnx.ModelProto:
    """A random network that onnx's checker takes."""
    made = Net(rng, rng.choice(TYPES))
    channels, wide = rng.choice((1, 3, 4)), rng.choice((4, 6, 8))
    size = rng.choice((7, 8, 12))
    x = made.act(made.conv("input", channels, wide, 3, rng.choice((1, 2))))
    for _ in range(rng.choice((1, 1, 2, 3))):
        groups = rng.choice((1, 1, 2, wide))
        y = made.act(made.conv(x, wide, wide, rng.choice((1, 1, 3)), groups=groups))
        if rng.random() < 0.3:
            y = made.add(
                "BatchNormalization", y, made.weight(np.ones(wide, made.dtype)), made.random(wide),
                made.random(wide), made.weight(np.ones(wide, made.dtype)),
            )  # fmt: skip
        y = made.attention(y, wide) if rng.random() < 0.85 else y
        x = made.add("Add", x, y) if rng.random() < 0.6 else y
        x = made.add("Relu", x) if rng.random() < 0.5 else x
    if rng.random() < 0.6:
        x = made.add("Gemm", made.add("Flatten", made.add("GlobalAveragePool", x)), made.random(wide, 5))
        shape: list = ["batch", 5]
    else:
        shape = ["batch", wide, None, None]
    made.nodes[-1].output[0] = "output"
    batch = rng.choice(("batch", "batch", "batch", 1, 2, 3))
    sides = [size, size] if rng.random() < 0.7 else rng.choice((["h", "w"], [None, None], [size, "w"]))
    shape[0] = batch
    graph = helper.make_graph(
        made.nodes,
        "net",
        [helper.make_tensor_value_info("input", made.kind, [batch, channels, *sides])],
        [helper.make_tensor_value_info("output", made.kind, shape)],
        made.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", made.opset)], ir_version=8)
