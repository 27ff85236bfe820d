"""Inner values of ONNX graphs: those that were asked for, of each sample, and the graph stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph.observe import extremes, observe, watching

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2] x) => (float[N, 2] y) {
    twice = Add(x, x)
    less = Relu(twice)
    y = Neg(less)
}"""
SAMPLES = [{"x": np.array([[1, -2]], np.float32)}, {"x": np.array([[-3, 4], [0, 1]], np.float32)}]


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(MODEL)


def test_each_sample_gives_the_values_that_were_asked_for_and_no_others(model: onnx.ModelProto) -> None:
    first, second = observe(model, ["less", "twice", "less"], SAMPLES)
    assert {name: value.tolist() for name, value in first.items()} == {"less": [[2, 0]], "twice": [[2, -4]]}
    assert second["less"].tolist() == [[0, 8], [0, 2]]


def test_the_input_is_what_the_sample_holds_and_an_output_may_be_asked_for(model: onnx.ModelProto) -> None:
    (found,) = observe(model, ["x", "y"], SAMPLES[:1])
    assert {name: value.tolist() for name, value in found.items()} == {"x": [[1, -2]], "y": [[-2, 0]]}


def test_a_copy_gets_each_value_once_beside_its_own_outputs_or_in_their_place(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    beside = watching(model, ["less", "y", "less"])
    alone = watching(model, ["less"], alone=True)
    assert [[value.name for value in copy.graph.output] for copy in (beside, alone)] == [["y", "less"], ["less"]]
    assert model.SerializeToString() == before


def test_extremes_are_by_sample_and_value_and_infinite_where_there_is_no_number(model: onnx.ModelProto) -> None:
    broken = {"x": np.array([[np.nan, np.nan]], np.float32)}
    assert extremes(model, ["x", "twice"], [*SAMPLES, broken]).tolist() == [[2, 4], [4, 8], [np.inf, np.inf]]


def test_a_sample_that_does_not_fit_is_an_error_with_a_code(model: onnx.ModelProto) -> None:
    with pytest.raises(SesurgeryError, match="SE602"):
        list(observe(model, ["less"], [{"x": np.zeros((1, 3), np.float32)}]))
