"""Surgery on ONNX files that this project did not export: other exporters, converters, optimizers and quantisers."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime.quantization
import onnxsim
import onnxslim
import pytest
import timm
import torch
import torchvision
from onnx import TensorProto, numpy_helper
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.networks.onnx_network import OnnxNetwork
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.planner import Plan
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon
from tests.fixtures.surgery import rules

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5
IDENTITY = {"block": "se", "init": "identity", "min_width": 4}
MOST_DRAWN = 10_000_000
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
FOUND = Path(__file__).parent / "found"


@functools.cache
def surgeon(shape: tuple[int, int, int]) -> OnnxSurgeon:
    """One surgeon a shape: it exports a kind of block once."""
    return OnnxSurgeon(shape)


def planned(model: onnx.ModelProto, shape: tuple[int, int, int], rule: dict[str, Any]) -> Plan:
    told = {"version": 1, "model": {"source": "onnx", "name": "at hand"}, "input": {"shape": list(shape)}}
    return planner.plan(pipeline.load_spec({**told, "surgery": [rule]}), OnnxSurgeon(shape).view(model))


def operate(model: onnx.ModelProto, shape: tuple[int, int, int], rule: dict[str, Any]) -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        changed = surgeon(shape).apply(model, planned(model, shape, rule))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answer(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    runs = session(model)
    return runs.run(None, {runs.get_inputs()[0].name: image})[0]


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def assert_equal_outputs(changed: onnx.ModelProto, model: onnx.ModelProto, sample: np.ndarray) -> None:
    expected = answer(model, sample)
    assert np.abs(expected - answer(model, 2 * sample)).max() > 100 * TOLERANCE, "the image does not matter"
    largest = np.abs(expected).max()
    np.testing.assert_allclose(answer(changed, sample), expected, rtol=0, atol=TOLERANCE * largest)


# --- caffe2's files, which the onnx package brings along: IR 3, weights listed as inputs ------------------------------


@dataclass(frozen=True)
class Light:
    """A file of the onnx package, and a rule that fits its kind."""

    name: str
    at: str
    every: int
    sites: int


LIGHTS = [
    Light("bvlc_alexnet", "conv", 3, 2),
    Light("densenet121", "conv", 60, 2),
    Light("inception_v1", "concat", 3, 3),
    Light("inception_v2", "concat", 5, 2),
    Light("resnet50", "residual", 4, 4),
    Light("shufflenet", "residual", 5, 3),
    Light("squeezenet", "concat", 4, 2),
    Light("vgg19", "conv", 8, 2),
    Light("zfnet512", "conv", 3, 2),
]


def drawn(model: onnx.ModelProto) -> onnx.ModelProto:
    """The file with values in place of each ConstantOfShape, that stands for a weight in it.

    The largest, of fully connected layers, stay one number all over, which leaves the output dependent on the image.
    """
    rng, shapes = np.random.default_rng(0), {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            dims = tuple(int(size) for size in numpy_helper.to_array(shapes[node.input[0]]))
            spread = np.sqrt(2 / np.prod(dims[1:])) if len(dims) > 1 else 0
            if np.prod(dims) > MOST_DRAWN:
                value = numpy_helper.from_array(np.array([spread], np.float32))
                node.CopyFrom(onnx.helper.make_node(node.op_type, list(node.input), list(node.output), value=value))
                continue
            values = rng.normal(0, spread, dims) if spread else rng.uniform(0.5, 1.0, dims)
            value = numpy_helper.from_array(values.astype(np.float32))
            node.CopyFrom(onnx.helper.make_node("Constant", [], list(node.output), node.name, value=value))
    return model


@pytest.mark.parametrize("light", LIGHTS, ids=[light.name for light in LIGHTS])
def test_a_file_of_caffe2_takes_blocks(light: Light) -> None:
    model, shape = drawn(onnx_io.load(LIGHT / f"light_{light.name}.onnx")), (3, 224, 224)
    # A softmax of such numbers is a one among zeros: its input is compared.
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    if last.op_type == "Softmax":
        model.graph.output[0].name = last.input[0]
        model.graph.node.remove(last)
    rule = {"insert": IDENTITY, "at": light.at, "every": light.every, "expect": light.sites}
    changed = operate(model, shape, rule)
    weights = {tensor.name for tensor in changed.graph.initializer}
    assert weights <= {value.name for value in changed.graph.input}, "in IR 3 every weight is an input"
    assert changed.ir_version == model.ir_version == 3
    assert_equal_outputs(changed, model, image(1, *shape))


# --- TensorFlow: channels last at the input, and islands of it inside -------------------------------------------------


@pytest.mark.parametrize("name", ["tf2onnx_se", "keras_se", "tf2onnx_islands"])
@pytest.mark.parametrize("at", ["residual", "post", "conv"])
def test_a_file_from_tensorflow_takes_blocks_on_its_channels(name: str, at: str) -> None:
    model, shape = onnx_io.load(FOUND / f"{name}.onnx"), (3, 32, 32)
    plan = planned(model, shape, {"insert": IDENTITY, "at": at})
    assert {(site.channels, site.height) for site in plan.sites} == {(8, 32), (16, 16)}
    sample = image(2, 32, 32, 3)
    assert_equal_outputs(operate(model, shape, {"insert": IDENTITY, "at": at}), model, sample)


def test_a_block_in_an_island_of_channels_last_does_what_it_does_elsewhere() -> None:
    """The same network, once with its Transposes pushed out: one block's values give one result."""
    model, shape = onnx_io.load(FOUND / "tf2onnx_islands.onnx"), (3, 32, 32)
    rule = {"insert": {"block": "se", "min_width": 4}, "at": "post"}
    plan = planned(model, shape, rule)
    turned = [site.value for site in plan.sites if "Relu" in site.value or "add" in site.value.lower()]
    assert turned, "the sites lie in islands"
    slim = onnxslim.slim(_copy(model))
    other = planned(slim, shape, rule)
    assert [(site.key, site.channels) for site in other.sites] == [(site.key, site.channels) for site in plan.sites]
    results = []
    for file, made in ((model, plan), (slim, other)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            results.append(answer(surgeon(shape).apply(file, made), image(2, 32, 32, 3)))
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=TOLERANCE * np.abs(results[0]).max())
    assert np.abs(results[0] - answer(model, image(2, 32, 32, 3))).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["tf2onnx_se", "keras_se"])
def test_the_se_of_a_file_from_tensorflow_is_found_and_removed(name: str) -> None:
    model, shape = onnx_io.load(FOUND / f"{name}.onnx"), (3, 32, 32)
    changed = operate(model, shape, {"remove": "se", "expect": 1})
    kinds = [node.op_type for node in changed.graph.node]
    assert kinds.count("GlobalAveragePool") == 1, "the classifier's own pool stays"
    assert answer(changed, image(2, 32, 32, 3)).shape == (2, 5)


def test_a_scope_filter_on_a_file_without_scopes_names_the_structural_placements() -> None:
    model = onnx_io.load(FOUND / "keras_se.onnx")
    with pytest.raises(Exception, match=r"(?s)SE204.*no scopes: use the structural placements.*residual"):
        planned(model, (3, 32, 32), {"insert": "se", "at": "residual", "within": "layer*"})


# --- torch's older exporter, and what onnxslim makes of it ------------------------------------------------------------


def older(network: nn.Module, size: int, opset: int) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, size, size),),
            buffer,
            dynamo=False,
            opset_version=opset,
            dynamic_axes={"input": {0: "batch"}},
            input_names=["input"],
        )
    return onnx.load_from_string(buffer.getvalue())


def network(name: str) -> tuple[nn.Module, int]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made, size = (
            (CifarResNet(8), 32) if name == "resnet" else (torchvision.models.mobilenet_v3_small(num_classes=10), 64)
        )
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return made.eval(), size


@pytest.mark.parametrize(
    ("name", "opset", "tool"),
    [
        *(("resnet", opset, "none") for opset in (7, 9, 11, 13, 17)),
        *(("resnet", opset, "onnxslim") for opset in (7, 9, 13, 17)),
        *(("resnet", opset, "onnxsim") for opset in (7, 13)),
        ("mobilenet", 9, "none"),
        ("mobilenet", 13, "onnxslim"),
        ("mobilenet", 13, "onnxsim"),
    ],
)
def test_a_file_of_torchs_older_exporter_takes_blocks(name: str, opset: int, tool: str, tmp_path: Path) -> None:
    made, size = network(name)
    model = older(made, size, opset)
    if tool == "onnxslim":
        model = onnxslim.slim(model)
    elif tool == "onnxsim":
        model, _ = onnxsim.simplify(model)
    onnx.save(model, tmp_path / "found.onnx")
    model = onnx_io.load(tmp_path / "found.onnx")
    rule = {"insert": IDENTITY, "at": "residual", "name": "extra"}
    changed = operate(model, (3, size, size), rule)
    assert list(changed.opset_import) == list(model.opset_import)
    assert_equal_outputs(changed, model, image(2, 3, size, size))
    if name == "mobilenet":
        operate(model, (3, size, size), {"remove": "se", "expect": 9})


def test_shuffles_with_an_open_batch_have_all_their_sites() -> None:
    model = older(torchvision.models.shufflenet_v2_x1_0(weights=None), 64, 13)
    opened = OnnxNetwork(model, (3, 64, 64))
    assert len(opened.plan(rules({"insert": "se", "at": "concat"})).sites) == 16
    assert opened.cost.macs > 10**7


class Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image).logits


def hugging_face() -> nn.Module:
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    config = library.EfficientNetConfig(image_size=64)
    return Logits(library.EfficientNetForImageClassification(config))


def efficientnet_lite() -> nn.Module:
    return timm.create_model("tf_efficientnet_lite0")


@pytest.mark.parametrize("make", [hugging_face, efficientnet_lite])
def test_an_efficientnet_of_another_library_has_the_sites_of_its_module(make: Callable[[], nn.Module]) -> None:
    made = make().eval()
    opened, wanted = OnnxNetwork(older(made, 64, 13), (3, 64, 64)), rules({"insert": "se", "at": "conv"})
    ours = TorchNetwork(made, (3, 64, 64))
    assert opened.cost.macs > 10**7
    # torch's count is of the module; the file has the same convolutions.
    assert opened.cost.macs == ours.cost.macs
    sites = [[site.key for site in network.plan(wanted).sites] for network in (opened, ours)]
    assert len(sites[0]) > 15
    assert sites[0] == sites[1]


# --- quantised files --------------------------------------------------------------------------------------------------


class _Feeds(onnxruntime.quantization.CalibrationDataReader):
    def __init__(self, size: int) -> None:
        self.left = [{"input": image(4, 3, size, size)}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def quantised(model: onnx.ModelProto, size: int, folder: Path, **options: Any) -> onnx.ModelProto:
    onnx.save(model, folder / "float.onnx")
    onnxruntime.quantization.quantize_static(
        folder / "float.onnx",
        folder / "quantised.onnx",
        _Feeds(size),
        quant_format=onnxruntime.quantization.QuantFormat.QDQ,
        **options,
    )
    return onnx_io.load(folder / "quantised.onnx")


@pytest.mark.parametrize(
    ("at", "dedicated"), [("residual", False), ("pre", False), ("post", False), ("conv", False), ("post", True)]
)
def test_a_block_goes_between_the_dequantised_value_and_its_reader(at: str, dedicated: bool, tmp_path: Path) -> None:
    made, size = network("resnet")
    model = quantised(older(made, size, 13), size, tmp_path, extra_options={"DedicatedQDQPair": dedicated})
    shape = (3, size, size)
    plain = planned(older(made, size, 13), shape, {"insert": IDENTITY, "at": at})
    quant = planned(model, shape, {"insert": IDENTITY, "at": at})
    assert [site.key for site in quant.sites] == [site.key for site in plain.sites]
    changed = operate(model, shape, {"insert": IDENTITY, "at": at})
    makers = {name: node for node in changed.graph.node for name in node.output}
    own = [node for node in changed.graph.node if ".se/" in node.name or node.name.startswith("se/")]
    entries = {name for node in own for name in node.input if name in makers and makers[name] not in own}
    kinds = {makers[name].op_type for name in entries}
    # Where each reader has a pair of its own, the block stands in front of the pairs: it runs once.
    assert kinds == {"DequantizeLinear"} or (dedicated and "DequantizeLinear" in kinds)
    before = [node.op_type for node in model.graph.node].count("QuantizeLinear")
    assert [node.op_type for node in changed.graph.node].count("QuantizeLinear") == before
    assert_equal_outputs(changed, model, image(2, *shape))


def test_a_gate_in_a_quantised_file_is_found_and_removed(tmp_path: Path) -> None:
    made, size = network("mobilenet")
    model = quantised(older(made, size, 13), size, tmp_path)
    changed = operate(model, (3, size, size), {"remove": "se", "expect": 9})
    assert answer(changed, image(2, 3, size, size)).shape == (2, 10)
    made_again = {name for node in changed.graph.node for name in node.output}
    read = {name for node in changed.graph.node for name in node.input} | {changed.graph.output[0].name}
    assert not {name for name in made_again - read if "QuantizeLinear" in name}, "nothing of the gates is left"


def test_a_file_that_computes_on_integers_says_so(tmp_path: Path) -> None:
    made, size = network("resnet")
    onnx.save(older(made, size, 13), tmp_path / "float.onnx")
    onnxruntime.quantization.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "integers.onnx",
        _Feeds(size),
        quant_format=onnxruntime.quantization.QuantFormat.QOperator,
    )
    leaves = OnnxSurgeon((3, size, size)).leaves(onnx_io.load(tmp_path / "integers.onnx"))
    assert any("QLinearConv computes on integers" in leaf.why for leaf in leaves)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    done = onnx.ModelProto()
    done.CopyFrom(model)
    return done


def test_the_blocks_of_a_bfloat16_file_are_bfloat16() -> None:
    made, size = network("resnet")
    model = older(made, size, 13)
    wide = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(wide)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    del model.graph.value_info[:]
    # The first convolution of that type is that of opset 22.
    model.opset_import[0].version, model.ir_version = 22, 10
    changed = operate(model, (3, size, size), {"insert": IDENTITY, "at": "residual", "expect": 3})
    own = [tensor for tensor in changed.graph.initializer if ".se." in tensor.name]
    assert len(own) == 12
    assert {tensor.data_type for tensor in own} == {TensorProto.BFLOAT16}
    first = next(tensor for tensor in own if tensor.name.endswith("fc1.weight"))
    assert np.abs(numpy_helper.to_array(first).astype(np.float32)).max() > 0
