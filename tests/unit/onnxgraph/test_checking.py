"""What the checker says of a graph, asked with its large weights and without them."""

import onnx
import pytest

from sesurgery.onnxgraph.checking import rejection
from sesurgery.onnxgraph.inference import size_of

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,8,8] x) => (float[N,64,6,6] y) <float[64,3,3,3] w> '


def convolution(body: str = "{ y = Conv(x, w) }") -> onnx.ModelProto:
    """A convolution with 1,728 weights, which are too many to be handed to the checker."""
    model = onnx.parser.parse_model(HEAD + body)
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [64, 3, 3, 3], [0.0] * 1728)
    model.graph.initializer.append(weight)
    return model


@pytest.mark.parametrize("weights", [True, False])
def test_a_graph_that_is_right_is_not_rejected(weights):
    assert rejection(convolution(), weights=weights) is None


@pytest.mark.parametrize(
    "body",
    [
        "{ y = Conv(x, v) }",
        "{ z = Conv(x, w) y = Conv(z, w) }",
        "{ y = Convolve(x, w) }",
        "{ y = Conv <strides: ints = [1, 1, 1]> (x, w) }",
    ],
    ids=["no such value", "sizes", "no such operator", "attribute"],
)
def test_a_wrong_graph_is_rejected_with_its_weights_and_without(body):
    model = convolution(body)
    said = rejection(model)
    assert said is not None
    assert rejection(model, weights=False) == said


def test_a_weight_without_its_values_is_seen_only_with_the_weights():
    model = convolution()
    del model.graph.initializer[0].float_data[:]
    assert "tensor name: w" in rejection(model)
    assert rejection(model, weights=False) is None


def test_an_old_file_that_does_not_list_a_weight_as_an_input_is_rejected():
    model = convolution()
    model.ir_version = 3
    model.opset_import[0].version = 8
    assert rejection(model, weights=False) == rejection(model) is not None


@pytest.mark.parametrize("raw", [True, False])
def test_the_size_of_a_model_is_known_without_writing_it(raw):
    model = convolution()
    if raw:
        model.graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(model.graph.initializer[0]), "w")
        )
    assert size_of(model) == pytest.approx(model.ByteSize(), abs=64)
