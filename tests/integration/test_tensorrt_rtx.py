"""A CIFAR-size SE-ResNet from torch to TensorRT-RTX engines, parsed, proved and built by NVIDIA's library on a CPU."""

from pathlib import Path

import pytest

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.nvidia.build import EngineBuilder
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX

BACKEND = TensorRTForRTX()
REASON = BACKEND.probe().builds
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_with_a_dynamic_batch_is_built(precision, small_se_files: dict[str, Path], tmp_path: Path) -> None:
    options = BuildOptions(precision=precision, batch=BatchRange(1, 8, 64))
    report = BACKEND.build(small_se_files[precision], tmp_path / "net.engine", options)
    # The stem, two a block, four on shortcuts; the gates have two a block.
    assert report.convolutions == ({"fp32": 13 + 8} if precision == "fp32" else {"fp16": 13, "fp32": 8})
    assert report.notes == ()
    assert (tmp_path / "net.engine").stat().st_size > 100_000


def test_the_fp16_engine_is_smaller_than_the_fp32_engine(small_se_files: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for precision, path in small_se_files.items():
        BACKEND.build(path, tmp_path / precision, BuildOptions(precision=precision))
        sizes[precision] = (tmp_path / precision).stat().st_size
    # Not half: the gates and the engine's own code weigh the same in both.
    assert sizes["fp16"] < 0.8 * sizes["fp32"]


def test_the_layers_that_compute_in_fp32_are_the_gates(small_se_files: dict[str, Path]) -> None:
    builder = EngineBuilder(BACKEND.library(), BACKEND.title)
    network, _parser = builder.parse(_source.read(small_se_files["fp16"]))
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    single = {
        layer.name for layer in layers if layer.type.name == "CONVOLUTION" and layer.get_output(0).dtype.name == "FLOAT"
    }
    scopes = {_source.read(small_se_files["fp16"]).scope(name).rpartition(".")[0] for name in single}
    assert len(single) == 8
    assert scopes == {f"layer{stage}.0.se" for stage in (1, 2, 3, 4)}
