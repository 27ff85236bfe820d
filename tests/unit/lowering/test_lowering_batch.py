"""A graph for an open batch becomes one for single samples where its shapes allow that."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sesurgery.lowering import examples as _examples
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.batch import for_one_sample

NET = "(float[{n},3,4,4] x) => (float[{n},3,4,4] y) <float[3,3,1,1] w> {{ c = Conv(x, w) y = Relu(c) }}"


def test_an_open_batch_is_fixed_and_the_numbers_stay() -> None:
    model = _examples.model(NET.format(n="N"))
    single = for_one_sample(model)
    assert single is not None
    for value in (*single.graph.input, *single.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1
    fed = {"x": np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)}
    assert _numerics.difference(_numerics.outputs(model, fed), _numerics.outputs(single, fed)) == 0
    # The model that was given is as it was.
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("size", [1, 2])
def test_a_fixed_batch_is_left(size: int) -> None:
    assert for_one_sample(_examples.model(NET.format(n=size))) is None


def test_a_graph_that_needs_more_than_one_sample_is_left() -> None:
    text = "(float[N,3] x) => (float[N,3] y) <float[4,3] w> { y = Add(x, w) }"
    assert for_one_sample(_examples.model(text)) is None


def test_weights_among_the_inputs_are_no_batch() -> None:
    model = _examples.model(NET.format(n="N"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, ["K", 3, 1, 1]))
    single = for_one_sample(model)
    assert single is not None
    assert not single.graph.input[1].type.tensor_type.shape.dim[0].HasField("dim_value")
