"""The compiler's list of layers, read: kernels, what they move, what fused."""

import json

import pytest

from sesurgery.backends._nvidia import inspector
from sesurgery.backends._nvidia.compiled import Compiled, parse
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


@pytest.mark.parametrize("layers", [["conv", "relu"], []])
def test_an_engine_that_has_only_names_says_how_to_get_more(layers: list[str]) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*does not tell its layers(.|\n)*-O detailed=true"):
        inspector.parse(json.dumps({"Layers": layers, "Bindings": []}))
