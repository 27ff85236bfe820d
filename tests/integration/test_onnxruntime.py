"""A CIFAR-size SE-ResNet from torch to ONNX Runtime engines in both precisions, against torch itself."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision

pytestmark = pytest.mark.slow

# Relative to the largest logit: fp32 sums in another order, and weights rounded to the 11 bits of fp16.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}


def test_the_pass_keeps_the_four_gates_and_the_last_pool_and_nothing_else(small_se_files: dict[str, Path]) -> None:
    edits = run(onnx.load(small_se_files["fp32"]), [Precision()]).edits
    kept = [edit.where for edit in edits if not edit.changed]
    # Squeeze, projection, ReLU, projection, sigmoid.
    assert len(kept) == 4 * 5 + 1, kept


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_agrees_with_torch_at_every_batch(precision, small_se, small_se_files, tmp_path: Path) -> None:
    backend = OnnxRuntime()
    report = backend.build(small_se_files[precision], tmp_path / "net.onnx", BuildOptions(precision=precision))
    plain = sum(isinstance(module, torch.nn.Conv2d) for module in small_se.modules()) - 4 * 2
    assert report.convolutions == {"fp32": plain + 8} if precision == "fp32" else {"fp16": plain, "fp32": 8}
    with backend.load(tmp_path / "net.onnx") as runner:
        for batch in (1, 2, 5, 64):
            # Not the small_se_files sample, and larger than what the running statistics expect.
            x = 2 * torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
            with torch.inference_mode():
                expected = small_se(x).numpy()
            (found,) = runner.infer({runner.inputs[0].name: x.numpy()}).values()
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()
