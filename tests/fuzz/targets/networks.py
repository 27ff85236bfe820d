"""Networks as exporters write them: torch's two, Keras, tf2onnx, and one in the spelling of Paddle's; all are small."""

import functools
import os
import random
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

FOUND = Path(__file__).parents[2] / "integration" / "found"


def prepare(folder: Path) -> None:
    """Write the files, once for all processes."""
    import torch
    from torch import nn

    folder.mkdir(parents=True)
    for path in sorted(FOUND.glob("*.onnx")):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "paddle.onnx").write_bytes(_paddle().SerializeToString())
    for index, gate in enumerate((nn.Sigmoid(), nn.Hardsigmoid())):
        for linear in (False, True):
            torch.manual_seed(index)
            net = _network(gate, linear=linear).eval()
            example, named = torch.randn(2, 3, 12, 12), {"input_names": ["input"], "output_names": ["output"]}
            path = folder / f"torch_{index}_{linear}.onnx"
            axes = {"input": {0: "batch"}, "output": {0: "batch"}}
            torch.onnx.export(net, (example,), str(path), dynamo=False, opset_version=13 + 4 * index,
                              dynamic_axes=axes, **named)  # fmt: skip
            if linear == bool(index):
                program = torch.onnx.export(net, (example,), dynamo=True, opset_version=20, verbose=False,
                                            dynamic_shapes=({0: "batch"},), external_data=False, **named)  # fmt: skip
                (folder / f"dynamo_{index}.onnx").write_bytes(program.model_proto.SerializeToString())


@functools.cache
def _files() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(Path(os.environ["SESURGERY_FUZZ_NETWORKS"]).glob("*.onnx")))


def exported(rng: random.Random) -> onnx.ModelProto:
    """One of the files."""
    return onnx.ModelProto.FromString(rng.choice(_files()))


def _network(gate, *, linear: bool):
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)
            layer = nn.Linear if linear else functools.partial(nn.Conv2d, kernel_size=1)
            self.down, self.act, self.up, self.gate = layer(6, 2), nn.ReLU(), layer(2, 6), gate

        def forward(self, x):
            z = self.pool(x)
            z = self.up(self.act(self.down(z.flatten(1) if linear else z)))
            return x * self.gate(z[:, :, None, None] if linear else z)

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
            self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
            self.act, self.se = nn.SiLU(), Attention()

        def forward(self, x):
            return (x + self.se(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))).relu()

    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Hardswish(), Unit(), Unit(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def _paddle() -> onnx.ModelProto:
    """Weights in Constant nodes, biases as Adds of their own, the hard gate in four nodes, opset 11, a size of -1."""
    numbers, nodes = np.random.default_rng(0), []

    def weight(name: str, *shape: int, value: float | None = None) -> str:
        array = np.full(shape, value) if value is not None else numbers.normal(size=shape) / 3
        tensor = numpy_helper.from_array(array.astype(np.float32), name)
        nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def node(operator: str, *inputs: str, **attributes) -> str:
        out = f"{operator.lower()}_{len(nodes)}.tmp_0"
        nodes.append(helper.make_node(operator, inputs, [out], name=f"p2o.{operator}.{len(nodes)}", **attributes))
        return out

    def conv(x: str, name: str, *shape: int, **attributes) -> str:
        y = node("Conv", x, weight(f"{name}.w_0", *shape), **attributes)
        return node("Add", y, weight(f"{name}.b_0", 1, shape[0], 1, 1))

    x = node("Relu", conv("x", "conv2d_0", 6, 3, 3, 3, pads=[1] * 4, strides=[2, 2]))
    for unit in range(2):
        y = conv(x, f"conv2d_{unit}a", 6, 6, 3, 3, pads=[1] * 4)
        z = node("Relu", conv(node("GlobalAveragePool", y), f"conv2d_{unit}b", 2, 6, 1, 1))
        z = conv(z, f"conv2d_{unit}c", 6, 2, 1, 1)
        three = weight(f"three_{unit}", 1, value=3)
        low, high = weight(f"low_{unit}", value=0), weight(f"high_{unit}", value=6)
        z = node("Div", node("Clip", node("Add", z, three), low, high), weight(f"six_{unit}", 1, value=6))
        x = node("Add", x, node("Mul", y, z))
    flat = node("Reshape", node("GlobalAveragePool", x), "shape")
    nodes[-1].output[0] = "flat"
    assert flat
    nodes.append(helper.make_node("MatMul", ["flat", weight("fc.w", 6, 5)], ["output"]))
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "paddle-onnx",
        [helper.make_tensor_value_info("x", kind, [-1, 3, 12, 12])],
        [helper.make_tensor_value_info("output", kind, [-1, 5])],
        [numpy_helper.from_array(np.array([-1, 6]), "shape")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7, producer_name="paddle")
