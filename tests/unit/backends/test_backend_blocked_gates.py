"""ONNX Runtime's engines scale by gates in its blocked layout, for single samples, and compute what the file says."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.onnxruntime_graph import blocked
from sesurgery.backends.onnxruntime_graph.by_batch import when
from sesurgery.lowering import examples as _examples
from sesurgery.lowering import load
from sesurgery.lowering.base import run
from sesurgery.onnxgraph import branches as _branches
from sesurgery.onnxgraph import numerics as _numerics

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="this onnxruntime has no blocked layout here"
)


def network(batch: str = "N", channels: int = 32, extra: str = "", output: str = "") -> onnx.ModelProto:
    """Two blocks with SE, the second one's shortcut an identity; 1x1 convolutions before the gates."""
    c = channels
    given = f"float[{batch},16,12,12] x"
    weights = (
        f"float[{c},16,1,1] stem, float[16,{c},1,1] a, float[{c},16,1,1] b, float[{c}] bias, float[8,{c},1,1] w1,"
        f"float[{c},8,1,1] w2, float[16,{c},1,1] d, float[{c},16,3,3] e, float[8,{c},1,1] w3, float[{c},8,1,1] w4,"
        "int64[2] axes = {2, 3}"
    )
    text = f"""({given}) => (float[{batch},{c},12,12] y{output}) <{weights}> {{
        s = Conv(x, stem)  s1 = Relu(s)
        h = Conv(s1, a)  h1 = Relu(h)  u = Conv(h1, b, bias)
        z = ReduceMean(u, axes)  p = Conv(z, w1)  q = Relu(p)  r = Conv(q, w2)  gate = Sigmoid(r)
        scaled = Mul(u, gate)  sum = Add(scaled, s1)  t = Relu(sum)
        k = Conv(t, d)  k1 = Relu(k)  v = Conv<pads=[1,1,1,1]>(k1, e)
        z2 = ReduceMean(v, axes)  p2 = Conv(z2, w3)  q2 = Relu(p2)  r2 = Conv(q2, w4)  gate2 = Sigmoid(r2)
        scaled2 = Mul(v, gate2)  sum2 = Add(scaled2, t)  y = Relu(sum2) {extra}
    }}"""
    return _examples.model(text)


def built(
    model: onnx.ModelProto, folder: Path, batch: BatchRange | None = None
) -> tuple[onnx.ModelProto, Path, tuple[str, ...]]:
    source, engine = folder / "net.onnx", folder / "net.engine.onnx"
    onnx.save(run(model, load(OnnxRuntime.passes)).model, source)
    report = OnnxRuntime().build(source, engine, BuildOptions(batch=batch or BatchRange()))
    return onnx.load(engine), engine, report.notes


def branches(engine: onnx.ModelProto) -> dict[str, onnx.GraphProto]:
    return {graph.name: graph for graph in _branches.graphs(engine.graph) if when(graph.name)}


def kinds(graph: onnx.GraphProto, *around: onnx.GraphProto) -> set[str]:
    """Operators, but for products that only scale a constant."""
    constants = {tensor.name for holder in (graph, *around) for tensor in holder.initializer}
    return {node.op_type for node in graph.node if node.op_type != "Mul" or not constants & set(node.input)}


def folds(graph: onnx.GraphProto) -> int:
    """Convolutions whose weights are scaled before they run: weights of the graph, through a convolution."""
    made_by = {name: node for node in graph.node for name in node.output}
    shaped = [made_by[node.input[1]] for node in graph.node if node.op_type == "Conv" and node.input[1] in made_by]
    scaled = [made_by[node.input[0]] for node in shaped if node.input[0] in made_by]
    return sum(node.op_type == "Conv" and node.input[0] not in made_by for node in scaled)


def same(model: onnx.ModelProto, engine: Path, batches: tuple[int, ...] = (1, 2, 5)) -> None:
    with OnnxRuntime().load(engine) as runner:
        for batch in batches:
            fed = {"x": np.random.default_rng(batch).normal(size=(batch, 16, 12, 12)).astype(np.float32)}
            assert _numerics.difference(_numerics.outputs(model, fed), runner.infer(fed)) < 1e-5


# 20 and 36 are not multiples of a block: ONNX Runtime fills the last one up.
@pytest.mark.parametrize("channels", [32, 20, 36])
def test_one_sample_has_a_graph_of_its_own_and_all_batches_the_same_numbers(channels: int, tmp_path: Path) -> None:
    model = network(channels=channels)
    engine, path, notes = built(model, tmp_path)
    assert any("a batch of 1 has a graph of its own" in note for note in notes)
    graphs = branches(engine)
    # Scaling, sum and ReLU are the epilogue of a convolution whose weights are the gate.
    assert not kinds(graphs["batch_1"], engine.graph) & {"Mul", "Add", "Relu"}
    assert "Mul" in kinds(graphs["any_batch"], engine.graph)
    same(model, path)


def test_a_file_of_one_sample_needs_no_choice(tmp_path: Path) -> None:
    model = network(batch="1")
    engine, path, notes = built(model, tmp_path)
    assert "gates are scaled in blocks of channels" in notes
    assert not kinds(engine.graph) & {"If", "Mul"}
    same(model, path, (1,))


@pytest.mark.parametrize(("size", "expected"), [(12, 1), (3, 1), (2, 0)])
def test_a_gate_goes_into_weights_where_the_map_is_not_much_smaller(size: int, expected: int, tmp_path: Path) -> None:
    """16 weights for each output channel against 144, 9 and 4 values of the map; a 3x3 convolution has 144."""
    model = network(batch="1")
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    for dim in model.graph.output[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    engine, path, _ = built(model, tmp_path)
    assert folds(engine.graph) == expected
    with OnnxRuntime().load(path) as runner:
        fed = {"x": np.random.default_rng(1).normal(size=(1, 16, size, size)).astype(np.float32)}
        assert _numerics.difference(_numerics.outputs(model, fed), runner.infer(fed)) < 1e-5


def test_a_gate_stays_out_of_weights_that_something_else_needs(tmp_path: Path) -> None:
    """The map before the gate is an output too."""
    model = network(batch="1", extra="map = Identity(u)", output=", float[1,32,12,12] map")
    engine, path, _ = built(model, tmp_path)
    assert folds(engine.graph) == 0
    same(model, path, (1,))


def test_a_gate_may_scale_two_maps(tmp_path: Path) -> None:
    model = network(
        extra="other = Conv(s1, g)  both = Mul(other, gate)  also = Relu(both)", output=", float[N,32,12,12] also"
    )
    model.graph.initializer.append(
        numpy_helper.from_array(np.random.default_rng(5).normal(size=(32, 32, 1, 1)).astype(np.float32), "g")
    )
    engine, path, _ = built(model, tmp_path)
    assert "Mul" not in kinds(branches(engine)["batch_1"], engine.graph)
    same(model, path)


@pytest.mark.parametrize("channels", [32, 20])
def test_a_file_of_two_samples_scales_them_as_one_map(channels: int, tmp_path: Path) -> None:
    model = network(batch="2", channels=channels)
    engine, path, _ = built(model, tmp_path)
    assert not kinds(engine.graph) & {"If", "Mul", "Add", "Relu"}
    # Gates differ by sample, so that none can be in the weights.
    assert folds(engine.graph) == 0
    same(model, path, (2,))


@pytest.mark.parametrize("channels", [32, 20])
def test_the_batch_an_engine_is_tuned_for_has_a_graph_of_its_own(channels: int, tmp_path: Path) -> None:
    model = network(channels=channels)
    engine, path, notes = built(model, tmp_path, BatchRange(1, 4, 64))
    assert any("a batch of 1 and a batch of 4 has a graph of its own" in note for note in notes)
    graphs = branches(engine)
    assert set(graphs) == {"batch_1", "batch_4", "any_batch"}
    assert not kinds(graphs["batch_4"], engine.graph) & {"Mul", "Add", "Relu"}
    assert (folds(graphs["batch_1"]), folds(graphs["batch_4"])) == (1, 0)
    large = [
        array.tobytes()
        for graph in (engine.graph, *graphs.values())
        for tensor in graph.initializer
        if (array := numpy_helper.to_array(tensor)).size > 64
    ]
    assert len(large) == len(set(large))
    same(model, path, (1, 2, 4, 5))


def test_an_engine_for_larger_batches_has_no_graph_for_one(tmp_path: Path) -> None:
    model = network()
    engine, path, _ = built(model, tmp_path, BatchRange(2, 4, 64))
    assert set(branches(engine)) == {"batch_4", "any_batch"}
    same(model, path, (2, 4))


def test_an_engine_for_one_batch_does_not_choose_between_graphs(tmp_path: Path) -> None:
    model = network()
    engine, path, _ = built(model, tmp_path, BatchRange(1, 1, 1))
    assert not kinds(engine.graph) & {"If", "Mul"}
    assert folds(engine.graph) == 1
    same(model, path, (1,))


def test_inputs_that_differ_in_their_first_dimension_have_one_graph(tmp_path: Path) -> None:
    model = network(extra="also = Relu(other)", output=", float[K,3] also")
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["K", 3]))
    engine, path, _ = built(model, tmp_path)
    assert not branches(engine)
    random = np.random.default_rng(0)
    fed = {"x": random.normal(size=(1, 16, 12, 12)), "other": random.normal(size=(5, 3))}
    feeds = {name: array.astype(np.float32) for name, array in fed.items()}
    with OnnxRuntime().load(path) as runner:
        assert _numerics.difference(_numerics.outputs(model, feeds), runner.infer(feeds)) < 1e-5


def test_no_stand_in_is_left_and_equal_weights_stand_once(tmp_path: Path) -> None:
    engine, path, _ = built(network(), tmp_path)
    graphs = (engine.graph, *branches(engine).values())
    arrays = [numpy_helper.to_array(tensor) for graph in graphs for tensor in graph.initializer]
    assert not any((array >= blocked.FIRST).any() for array in arrays if array.dtype == np.float32)
    large = [array.tobytes() for array in arrays if array.size > 64]
    assert len(large) == len(set(large))
    same(network(), path)


def test_a_gate_that_is_an_output_keeps_its_product(tmp_path: Path) -> None:
    model = network(extra="gates = Identity(gate)", output=", float[N,32,1,1] gates")
    engine, path, _ = built(model, tmp_path)
    assert "Mul" in {kind for graph in branches(engine).values() for kind in kinds(graph, engine.graph)}
    same(model, path)


def test_numbers_that_differ_keep_the_optimisers_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesurgery.backends.onnxruntime_graph.special.TOLERANCE", -1.0)
    engine, path, notes = built(network(), tmp_path)
    assert any("outputs differ" in note for note in notes)
    assert "If" not in kinds(engine.graph)
    same(network(), path)


def test_a_network_without_gates_is_as_the_optimiser_left_it(tmp_path: Path) -> None:
    model = _examples.model(
        "(float[N,16,12,12] x) => (float[N,16,12,12] y) <float[16,16,1,1] w> { c = Conv(x, w) y = Relu(c) }"
    )
    engine, path, _ = built(model, tmp_path)
    assert "If" not in kinds(engine.graph)
    same(model, path)
