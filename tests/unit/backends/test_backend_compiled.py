"""The compiler's list of layers, read: kernels, what they move, what fused."""

import json

import pytest

from sesurgery.backends.kernels.compiled import Compiled
from sesurgery.backends.nvidia import inspector
from sesurgery.backends.nvidia.compiled import parse
from sesurgery.diagnostics import SesurgeryError

LOG = """Layers:
Name: __mye1_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , \
StreamId: 0, Metadata:\x20
Name: node_Conv_1_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,3,8,8], Strides: [192,1,24,3], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [ { Name: c, Dimensions: \
[4,3,1,1], Strides: [3,1,3,3], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], \
Outputs: [ { Name: y, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Half, \
Format: (NHWC) Channel major format }], TacticName: t, StreamId: 0, Metadata: \
[ONNX Layer: node_Conv_1][ONNX Layer: node_relu]
Name: __myl_TranCastMean_myl0_2, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [], Outputs: [ { Name: z, \
Dimensions: [-1,1,1,4], Strides: [4,4,4,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear \
format }], TacticName: t, StreamId: 0, Metadata:\x20
 Multi-Device: Disabled"""


def test_kernels_are_what_moves_something() -> None:
    kernels = parse(LOG)
    assert [(kernel.kind, kernel.fused, kernel.nodes) for kernel in kernels] == [
        ("correlation", "correlation", ("node_Conv_1", "node_relu")),
        ("kgen", "TranCastMean", ()),
    ]


def test_traffic_counts_activations_once_read_and_once_written_but_no_constants() -> None:
    one, eight = (Compiled(parse(LOG), batch) for batch in (1, 8))
    assert one.traffic == (3 * 64 + 4 * 64) * 2 + 4 * 64 * 2 + 4 * 4
    assert eight.traffic == 8 * one.traffic
    assert one.fusions == {"correlation": 1, "TranCastMean": 1}


TEN_LOG = """Layers:
Name: Reformatting CopyNode for Input Tensor 0 to /stem/Conv, LayerType: Reformat, Inputs: [ { Name: image, Location: \
Device, Dimensions: [2,3,8,8], Format/Datatype: Half }], Outputs: [ { Name: Reformatted Input Tensor 0 to /stem/Conv, \
Location: Device, Dimensions: [2,3,8,8], Format/Datatype: Half }], ParameterType: Reformat, Origin: REFORMAT, \
TacticValue: 0x03ea, StreamId: 0, Metadata:\x20
Name: /stem/Conv + /act/Relu, LayerType: CaskConvolution, Inputs: [ { Name: Reformatted Input Tensor 0 to /stem/Conv, \
Location: Device, Dimensions: [2,3,8,8], Format/Datatype: Half }], Outputs: [ { Name: /act/Relu_output_0, Location: \
Device, Dimensions: [2,5,4,4], Format/Datatype: Half }], ParameterType: Convolution, Kernel: [3,3], Weights: {"Type": \
"Half", "Count": 135}, HasReLU: 1, TacticName: t, TacticValue: 0x2a, StreamId: 0, Metadata: [ONNX Layer: /stem/Conv]\
[ONNX Layer: /act/Relu]
Name: __mye7_myl2_0, LayerType: shape_call, Inputs: [], Outputs: [], TacticName: , StreamId: 0, Metadata:\x20
Name: /fc/Gemm_myl2_1, LayerType: gemm, Inputs: [ { Name: /act/Relu_output_0, Dimensions: [2,80], Format/Datatype: \
Half }, { Name: __mye9_dconst, Dimensions: [80,7], Format/Datatype: Half }, { Name: fc_bias _ constantHalf, \
Dimensions: [1,7], Format/Datatype: Half }], Outputs: [ { Name: logits, Dimensions: [2,7], Format/Datatype: Float }], \
TacticName: t, StreamId: 0, Metadata: [ONNX Layer: /fc/Gemm]"""
"""As TensorRT 10 writes it: types in one text, other facts between, weights among the inputs."""


def test_the_list_of_tensorrt_10_is_read_and_its_weights_do_not_count() -> None:
    kernels = parse(TEN_LOG, ["image"])
    assert [(kernel.kind, len(kernel.inputs), kernel.nodes) for kernel in kernels] == [
        ("Reformat", 1, ()),
        ("CaskConvolution", 1, ("/stem/Conv", "/act/Relu")),
        ("gemm", 1, ("/fc/Gemm",)),
    ]
    image, features, logits = 2 * 3 * 64 * 2, 2 * 5 * 16 * 2, 2 * 7 * 4
    assert Compiled(kernels).traffic == 3 * image + 2 * features + logits


def test_an_input_of_the_network_is_no_weight_however_its_name_was_changed() -> None:
    text = TEN_LOG.replace("Name: image,", "Name: image_1,")
    (copied, *_) = parse(text, ["image.1"])
    assert [tensor.name for tensor in copied.inputs] == ["image_1"]


TEN = {"Name": "x", "Location": "Device", "Dimensions": [-1, 3, 8, 8], "Format/Datatype": "Row major linear FP16"}
ELEVEN = {
    "Name": "x",
    "Location": "Device",
    "Dimensions": [-1, 3, 8, 8],
    "Format": "Row major linear",
    "Datatype": "Half",
}


@pytest.mark.parametrize(("tensor", "ends"), [(TEN, "Bindings"), (ELEVEN, "I/O Tensors")], ids=["10", "11"])
def test_an_inspectors_json_is_read_in_either_versions_words(tensor: dict, ends: str) -> None:
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor],
        "Outputs": [{**tensor, "Name": "y"}],
        "Metadata": "[ONNX Layer: node_Conv_1]\u001e[ONNX Layer: node_relu]",
    }
    text = json.dumps({"Layers": [layer, {**layer, "Name": "shape", "Inputs": [], "Outputs": []}], ends: ["x", "y"]})
    found = inspector.parse(text, 4)
    assert found.traffic == 2 * 4 * 3 * 64 * 2
    assert [kernel.nodes for kernel in found.kernels] == [("node_Conv_1", "node_relu")]


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ("Row major linear FP32", "Float"),
        ("Row major linear FP16 format", "Half"),
        ("Channel major FP16 format where channel % 8 == 0", "Half"),
        ("Thirty-two wide channel vectorized row major Int8 format", "Int8"),
        ("Two wide channel vectorized row major FP16 format", "Half"),
        ("Half", "Half"),
        ("BFloat16", "BFloat16"),
    ],
)
def test_a_type_is_found_in_the_words_for_its_layout(words: str, dtype: str) -> None:
    tensor = {"Name": "x", "Dimensions": [1, 8], "Format/Datatype": words}
    layer = {"Name": "copy", "LayerType": "Reformat", "Inputs": [tensor], "Outputs": [{**tensor, "Name": "y"}]}
    (kernel,) = inspector.parse(json.dumps({"Layers": [layer], "Bindings": ["x", "y"]})).kernels
    assert {found.dtype for found in (*kernel.inputs, *kernel.outputs)} == {dtype}


def test_weights_that_an_engine_lists_as_inputs_do_not_count() -> None:
    def tensor(name: str, *dims: int) -> dict[str, object]:
        return {"Name": name, "Dimensions": list(dims), "Format/Datatype": "Half"}

    gemm = {
        "Name": "fc_myl1_0",
        "LayerType": "gemm",
        "Inputs": [tensor("image_1", 2, 9), tensor("__mye3_dconst", 9, 4), tensor("fc_bias _ constantHalf", 1, 4)],
        "Outputs": [tensor("logits", 2, 4)],
    }
    for ends in (["image.1", "logits"], [{"Name": "image.1"}, {"Name": "logits"}]):
        found = inspector.parse(json.dumps({"Layers": [gemm], "Bindings": ends}))
        assert found.traffic == (2 * 9 + 2 * 4) * 2


def test_an_engine_with_open_shapes_may_not_tell_types() -> None:
    tensor = {"Name": "x", "Dimensions": [-1, 3, 8, 8], "Format/Datatype": "N/A due to dynamic shapes"}
    layer = {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [{**tensor, "Name": "y"}]}
    assert not inspector.tells_types(json.dumps({"Layers": [layer], "Bindings": ["x", "y"]}))
    assert inspector.tells_types(json.dumps({"Layers": [{**layer, "Inputs": [TEN], "Outputs": [TEN]}]}))


@pytest.mark.parametrize("layers", [["conv", "relu"], []])
def test_an_engine_that_has_only_names_says_how_to_get_more(layers: list[str]) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*does not tell its layers(.|\n)*-O detailed=true"):
        inspector.parse(json.dumps({"Layers": layers, "Bindings": []}))
