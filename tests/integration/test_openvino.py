"""A CIFAR-size SE-ResNet from torch to OpenVINO engines in every precision that the processor has, against torch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sesurgery.backends import openvino as module
from sesurgery.backends.base import BuildOptions
from sesurgery.backends.openvino import OpenVINO
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow

# Relative to the largest logit: fp32 sums in another order, weights have the 11 bits of fp16, everything the 8 of bf16.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}


@pytest.fixture(scope="module")
def exported(small_se_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("export") / "net.bf16.onnx"
    onnx.save(run(onnx.load(small_se_files["fp32"]), [Precision(target="bf16")]).model, path)
    return {**small_se_files, "bf16": path}


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_an_engine_agrees_with_torch_at_every_batch(precision, small_se, exported, tmp_path: Path) -> None:
    abilities = module.capabilities()
    if precision == "bf16" and "BF16" not in abilities:
        pytest.skip("this processor has no bf16")
    report = OpenVINO().build(exported[precision], tmp_path / "net.xml", BuildOptions(precision=precision))
    computes = {"fp16": "fp16" if "FP16" in abilities else "fp32"}.get(precision, precision)
    assert report.convolutions == {computes: sum(isinstance(part, torch.nn.Conv2d) for part in small_se.modules())}
    with OpenVINO().load(tmp_path / "net.xml") as runner:
        for batch in (1, 2, 5, 64):
            # Not the exported sample, and larger than what the running statistics expect.
            x = 2 * torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
            with torch.inference_mode():
                expected = small_se(x).numpy()
            (found,) = runner.infer({runner.inputs[0].name: x.numpy()}).values()
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()
