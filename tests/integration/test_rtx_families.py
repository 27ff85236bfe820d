"""Networks of the published families, in every precision, with a fixed and with open shapes: built by NVIDIA's library.

Small members of each family, random weights, small images: what is compiled differs in size, not in kind.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
from fixtures.sharing import Once
from timm.models.regnet import RegNet, RegNetCfg
from torch import nn

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.lowering import load
from sesurgery.lowering.base import run
from sesurgery.lowering.precision import int8 as quantize
from sesurgery.lowering.precision.half import Precision as ToPrecision
from sesurgery.networks.export import INPUT, export
from sesurgery.pipeline.build_engine.lowered import SPOILED
from sesurgery.profiles import parse_profile
from sesurgery.spec.engines import Precision
from sesurgery.spec.export import Export

RTX = TensorRTForRTX(capabilities=("SM86",))
REASON = RTX.probe().builds
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
SIDE = 64
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "ResNet": lambda: timm.create_model("test_resnet", num_classes=10, block_args={"attn_layer": "se"}),
    "MobileNetV3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=10),
    "EfficientNet": lambda: timm.create_model("test_efficientnet", num_classes=10),
    "RegNet": lambda: RegNet(RegNetCfg(depth=7, w0=24, wa=36.44, wm=2.49, group_size=8, se_ratio=0.25), num_classes=10),
    "Inception": lambda: torchvision.models.googlenet(num_classes=10, aux_logits=False, init_weights=False),
}
Converted = tuple[Precision, onnx.ModelProto]
SHAPES = {
    "fixed": BuildOptions(),
    "open": BuildOptions(profiles=tuple(parse_profile(f"{INPUT}={size}x3x{SIDE}x{SIDE}") for size in ("1,2,4", "8"))),
}


@pytest.fixture(scope="module")
def exported(once: Once) -> Callable[[str], onnx.ModelProto]:
    """A network of a family as an ONNX model; each is exported once, in whatever order the tests come."""

    def make(family: str) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = FAMILIES[family]().eval()
        export(network, (3, SIDE, SIDE), Path("net.onnx"), Export(check_batches=(1,), max_abs=1e-2))

    return lambda family: onnx.load(once(f"family-{family}", lambda: make(family)) / "net.onnx")


@pytest.fixture(scope="module", params=itertools.product(FAMILIES, ("fp32", "fp16", "bf16", "int8")), ids="-".join)
def converted(request: pytest.FixtureRequest, exported: Callable[[str], onnx.ModelProto]) -> Converted:
    """A network in one precision, as `build-engine` converts it."""
    family, precision = request.param
    names = [name for name in RTX.passes if name not in SPOILED.get(precision, ())]
    model = run(exported(family), load(names)).model
    if precision == "int8":
        samples = np.random.default_rng(0).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
        model = run(model, [quantize.Quantize(quantize.ranges_of(model, [{INPUT: samples}], "minmax"))]).model
    elif precision != "fp32":
        model = run(model, [ToPrecision(precision)]).model
    return precision, model


@pytest.mark.parametrize("shapes", SHAPES)
def test_a_family_is_built_with_no_convolution_left_in_fp32_but_the_gates(
    shapes: str, converted: Converted, tmp_path: Path
) -> None:
    precision, model = converted
    path = tmp_path / "net.onnx"
    onnx.save(model if shapes == "open" else _with_batch(model, 2), path)
    found = RTX.build(path, tmp_path / "net.engine", replace(SHAPES[shapes], precision=precision)).convolutions
    assert (tmp_path / "net.engine").stat().st_size > 100_000
    assert set(found) <= {precision, "fp32"}
    assert found[precision] > 5
    if precision != "fp32":
        # What is left works on maps of one pixel, as the projections of gates do.
        assert found.get("fp32", 0) <= len(list(_small_convolutions(_source.read(path))))


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]
    return copy


def _small_convolutions(source: _source.OnnxFile) -> Iterator[str]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in source.model.graph.value_info}
    for node in source.model.graph.node:
        if node.op_type in _source.CONVOLUTIONS and node.output[0] in shapes:
            dims = shapes[node.output[0]]
            if [dim.dim_value for dim in dims[2:]] == [1, 1]:
                yield node.output[0]
