"""A CIFAR-size SE-ResNet from torch to TensorRT-RTX engines, parsed, proved and built by NVIDIA's library on a CPU."""

from pathlib import Path

import onnx
import pytest

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.nvidia.build import EngineBuilder
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision

BACKEND = TensorRTForRTX()
REASON = BACKEND.probe().builds
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


@pytest.fixture(scope="module")
def exported(small_se_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = {"fp32": small_se_onnx, "fp16": tmp_path_factory.mktemp("export") / "net.fp16.onnx"}
    onnx.save(run(onnx.load(paths["fp32"]), [Precision()]).model, paths["fp16"])
    return paths


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_with_a_dynamic_batch_is_built(precision, exported: dict[str, Path], tmp_path: Path) -> None:
    options = BuildOptions(precision=precision, batch=BatchRange(1, 8, 64))
    report = BACKEND.build(exported[precision], tmp_path / "net.engine", options)
    # The stem, two a block, four on shortcuts; the gates have two a block.
    assert report.convolutions == ({"fp32": 13 + 8} if precision == "fp32" else {"fp16": 13, "fp32": 8})
    assert report.notes == ()
    assert (tmp_path / "net.engine").stat().st_size > 100_000


def test_the_fp16_engine_is_smaller_than_the_fp32_engine(exported: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for precision, path in exported.items():
        BACKEND.build(path, tmp_path / precision, BuildOptions(precision=precision))
        sizes[precision] = (tmp_path / precision).stat().st_size
    # Not half: the gates and the engine's own code weigh the same in both.
    assert sizes["fp16"] < 0.8 * sizes["fp32"]


def test_the_layers_that_compute_in_fp32_are_the_gates(exported: dict[str, Path]) -> None:
    builder = EngineBuilder(BACKEND.library(), BACKEND.title)
    network, _parser = builder.parse(_source.read(exported["fp16"]))
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    single = {
        layer.name for layer in layers if layer.type.name == "CONVOLUTION" and layer.get_output(0).dtype.name == "FLOAT"
    }
    scopes = {_source.read(exported["fp16"]).scope(name).rpartition(".")[0] for name in single}
    assert len(single) == 8
    assert scopes == {f"layer{stage}.0.se" for stage in (1, 2, 3, 4)}
