"""What a gate behind an activation costs in OpenVINO, part by part, and ways of writing it that might cost less.

    python benchmarks/openvino_gates.py                              MobileNetV3-Large and EfficientNet-B0
    python benchmarks/openvino_gates.py efficientnet_b0 --rounds 40

Networks of timm with random weights, one sample of 224 x 224, fp32, two threads. The parts: the product alone, of maps
with gates that are given as inputs; the gates alone, whose sum is added to the outputs. Each other form computes what
the file does. All forms run in alternating rounds of one process; they are loaded afresh, in another order, for each
placement. A figure is the mean over placements of the median over rounds of a form's time over the plain network's,
with Student's 95 % interval over placements.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import openvino
import timm
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from scipy.stats import t

from sesurgery.lowering.squeezes import scalings, squeezes
from sesurgery.networks.export import convert
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.spec.export import Export

NETWORKS = ("mobilenetv3_large_100", "efficientnet_b0")
SHAPE = (3, 224, 224)
REPEATS = 3
"""Timed runs of each form in a round; the fastest counts."""
Write = Callable[[NodeProto], list[NodeProto] | None]
"""What stands in a node's place; None where it stays."""


class File:
    """A network's file for one sample, and where its gates are."""

    def __init__(self, name: str) -> None:
        network = timm.create_model(name).eval()
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
        self.model = convert(network, SHAPE, Export())
        for value in (*self.model.graph.input, *self.model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        self.model = onnx.shape_inference.infer_shapes(self.model)
        self.flow = Dataflow(self.model)
        self.products = {node.output[0]: (other, gate) for node, other, gate in scalings(self.flow)}
        self.means = {node.output[0] for node in squeezes(self.flow)}
        self.branches = gate_branches(self.flow)

    def written(self, write: Write, *, bypassed: bool = False) -> onnx.ModelProto:
        """A copy with other nodes, or whose products are bypassed; what nothing reads any more is left out."""
        made = onnx.ModelProto()
        made.CopyFrom(self.model)
        nodes: list[NodeProto] = []
        for node in made.graph.node:
            for place, name in enumerate(node.input):
                while bypassed and name in self.products:
                    name = self.products[name][0]
                node.input[place] = name
            instead = write(node)
            nodes += [node] if instead is None else instead
        needed, kept = {value.name for value in made.graph.output}, []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(NodeProto.FromString(node.SerializeToString()))
        del made.graph.node[:]
        made.graph.node.extend(reversed(kept))
        made.graph.ClearField("value_info")
        return made

    def map_of(self, mean: NodeProto) -> tuple[int, int, int]:
        """The channels, height and width that a mean is taken of."""
        _, channels, height, width = self.flow.shape(mean.input[0]) or ()
        return int(channels), int(height), int(width)


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def plain(file: File) -> onnx.ModelProto:
    return file.written(lambda _: None, bypassed=True)


def product_alone(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto] | None:
        if node.output[0] not in file.products:
            return None
        value, gate = file.products[node.output[0]]
        return [helper.make_node(node.op_type, [value, f"{gate}_given"], list(node.output))]

    made = file.written(write)
    for _, gate in file.products.values():
        shape = file.flow.shape(gate)
        made.graph.input.append(helper.make_tensor_value_info(f"{gate}_given", TensorProto.FLOAT, shape))
    return made


def gates_alone(file: File) -> onnx.ModelProto:
    target = file.model.graph.output[0].name

    def write(node: NodeProto) -> list[NodeProto] | None:
        if node.output[0] != target:
            return None
        sums = [
            helper.make_node("ReduceSum", [gate], [f"{gate}_sum"], keepdims=0) for _, gate in file.products.values()
        ]
        last = NodeProto.FromString(node.SerializeToString())
        last.output[0] = f"{target}_alone"
        added = helper.make_node("Sum", [f"{target}_alone", *(each.output[0] for each in sums)], [target])
        return [last, *sums, added]

    return file.written(write, bypassed=True)


def matrix_products(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto] | None:
        if node.op_type != "Conv" or node.input[0] not in file.branches or node.output[0] not in file.branches:
            return None
        (result,), weight = node.output, file.flow.constant(node.input[1])
        return [
            constant(f"{result}_flat", np.array([1, -1])),
            constant(f"{result}_deep", np.array([1, -1, 1, 1])),
            constant(f"{result}_weight", np.ascontiguousarray(weight[:, :, 0, 0])),
            helper.make_node("Reshape", [node.input[0], f"{result}_flat"], [f"{result}_vector"]),
            helper.make_node(
                "Gemm", [f"{result}_vector", f"{result}_weight", *node.input[2:]], [f"{result}_product"], transB=1
            ),
            helper.make_node("Reshape", [f"{result}_product", f"{result}_deep"], [result]),
        ]

    return file.written(write)


def mean_by(file: File, write: Callable[[NodeProto], list[NodeProto]]) -> onnx.ModelProto:
    return file.written(lambda node: write(node) if node.output[0] in file.means else None)


def mean_as_matrix_product(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto]:
        (result,), (channels, height, width) = node.output, file.map_of(node)
        size = height * width
        return [
            constant(f"{result}_rows", np.array([1, channels, size])),
            constant(f"{result}_deep", np.array([1, channels, 1, 1])),
            constant(f"{result}_shares", np.full((size, 1), 1 / size, np.float32)),
            helper.make_node("Reshape", [node.input[0], f"{result}_rows"], [f"{result}_matrix"]),
            helper.make_node("MatMul", [f"{result}_matrix", f"{result}_shares"], [f"{result}_product"]),
            helper.make_node("Reshape", [f"{result}_product", f"{result}_deep"], [result]),
        ]

    return mean_by(file, write)


def mean_as_depthwise(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto]:
        (result,), (channels, height, width) = node.output, file.map_of(node)
        weight = np.full((channels, 1, height, width), 1 / (height * width), np.float32)
        inputs = [node.input[0], f"{result}_shares"]
        return [constant(f"{result}_shares", weight), helper.make_node("Conv", inputs, [result], group=channels)]

    return mean_by(file, write)


def mean_as_pool(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto]:
        return [helper.make_node("AveragePool", node.input[:1], node.output, kernel_shape=file.map_of(node)[1:])]

    return mean_by(file, write)


def mean_in_two_steps(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto]:
        (result,) = node.output
        return [
            constant(f"{result}_width", np.array([3])),
            constant(f"{result}_height", np.array([2])),
            helper.make_node("ReduceMean", [node.input[0], f"{result}_width"], [f"{result}_rows"]),
            helper.make_node("ReduceMean", [f"{result}_rows", f"{result}_height"], [result]),
        ]

    return mean_by(file, write)


def gate_into_weights(file: File) -> onnx.ModelProto:
    def write(node: NodeProto) -> list[NodeProto] | None:
        if node.op_type != "Conv" or node.input[0] not in file.products or file.flow.constant(node.input[1]) is None:
            return None
        value, gate = file.products[node.input[0]]
        scaled = f"{node.output[0]}_weight"
        made = NodeProto.FromString(node.SerializeToString())
        made.input[:2] = [value, scaled]
        return [helper.make_node("Mul", [node.input[1], gate], [scaled]), made]

    return file.written(write)


FORMS: dict[str, Callable[[File], onnx.ModelProto]] = {
    "plain": plain,
    "as exported": lambda file: file.model,
    "the product alone": product_alone,
    "the gates alone": gates_alone,
    "1x1 convolutions as matrix products": matrix_products,
    "the mean as a matrix product": mean_as_matrix_product,
    "the mean as a depthwise convolution": mean_as_depthwise,
    "the mean as AveragePool": mean_as_pool,
    "the mean over rows, then columns": mean_in_two_steps,
    "the gate into the weights behind it": gate_into_weights,
}
PARTS = ("plain", "the product alone", "the gates alone")
"""Forms that compute something else."""


def loaded(path: Path) -> tuple[openvino.InferRequest, list[np.ndarray]]:
    options = {"INFERENCE_NUM_THREADS": 2, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    random = np.random.default_rng(0)
    feeds = [random.uniform(size=list(each.shape)).astype(np.float32) for each in compiled.inputs]
    return compiled.create_infer_request(), feeds


def measured(paths: dict[str, Path], rounds: int, placements: int) -> Iterator[tuple[str, float, float, float]]:
    """Of each form the name, and its time over the plain network's with the interval's ends."""
    random = np.random.default_rng(0)
    ratios: dict[str, list[float]] = {form: [] for form in paths}
    for _ in range(placements):
        order = random.permutation(list(paths)).tolist()
        engines = {form: loaded(paths[form]) for form in order}
        for request, feeds in engines.values():
            for _ in range(5):
                request.infer(feeds)
        times: dict[str, list[float]] = {form: [] for form in paths}
        for _ in range(rounds):
            for form in random.permutation(order).tolist():
                request, feeds = engines[form]
                found = []
                for _ in range(REPEATS):
                    began = time.perf_counter()
                    request.infer(feeds)
                    found.append(time.perf_counter() - began)
                times[form].append(min(found))
        for form, each in times.items():
            ratios[form].append(float(np.median(np.array(each) / np.array(times["plain"]))))
    for form, each in ratios.items():
        mean, error = np.mean(each), np.std(each, ddof=1) / np.sqrt(placements)
        reach = t.ppf(0.975, placements - 1) * error
        yield form, float(mean), float(mean - reach), float(mean + reach)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--placements", type=int, default=8)
    given = parser.parse_args()
    for name in given.networks:
        torch.manual_seed(0)
        file = File(name)
        with tempfile.TemporaryDirectory() as folder:
            paths = {form: Path(folder) / f"{number}.onnx" for number, form in enumerate(FORMS)}
            for form, make in FORMS.items():
                onnx.save(make(file), paths[form])
            outputs = {form: request.infer(feeds)[0] for form, (request, feeds) in map(_loaded, paths.items())}
            for form, found in outputs.items():
                expected = outputs["as exported"]
                apart = np.abs(found - expected).max() / np.abs(expected).max()
                if form not in PARTS and apart > 1e-4:
                    raise SystemExit(f"{name}: {form} computes something else, by {apart:.2g} of the largest output")
            print(f"\n| {name}, {len(file.products)} gates | time over the plain network's |\n| --- | ---: |")
            for form, mean, low, high in measured(paths, given.rounds, given.placements):
                print(f"| {form} | {mean:.3f} ({low:.3f} to {high:.3f}) |", flush=True)


def _loaded(item: tuple[str, Path]) -> tuple[str, tuple[openvino.InferRequest, list[np.ndarray]]]:
    form, path = item
    return form, loaded(path)


if __name__ == "__main__":
    main()
