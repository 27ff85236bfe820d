"""A CIFAR-size SE-ResNet from torch to ONNX Runtime engines in both precisions, against torch itself."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from timm.models.resnet import BasicBlock, ResNet

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision

pytestmark = pytest.mark.slow

# Relative to the largest logit: fp32 sums in another order, and weights rounded to the 11 bits of fp16.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ResNet(
            BasicBlock,
            (1, 1, 1, 1),
            num_classes=10,
            channels=(16, 32, 64, 128),
            stem_width=16,
            block_args={"attn_layer": "se"},
            zero_init_last=False,
        ).eval()
        # Fresh statistics (mean 0, variance 1) would let a wrong fold of the norms go unseen.
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def exported(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    paths = {"fp32": folder / "net.onnx", "fp16": folder / "net.fp16.onnx"}
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, 32, 32),),
        dynamo=True,
        optimize=True,
        opset_version=20,
        dynamic_shapes=({0: "batch"},),
        external_data=False,
        verbose=False,
    )
    program.save(paths["fp32"])
    onnx.save(run(onnx.load(paths["fp32"]), [Precision()]).model, paths["fp16"])
    return paths


def test_the_pass_keeps_the_four_gates_and_the_last_pool_and_nothing_else(exported: dict[str, Path]) -> None:
    edits = run(onnx.load(exported["fp32"]), [Precision()]).edits
    kept = [edit.where for edit in edits if not edit.changed]
    # Squeeze, projection, ReLU, projection, sigmoid.
    assert len(kept) == 4 * 5 + 1, kept


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_agrees_with_torch_at_every_batch(precision, network, exported, tmp_path: Path) -> None:
    backend = OnnxRuntime()
    report = backend.build(exported[precision], tmp_path / "net.onnx", BuildOptions(precision=precision))
    plain = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) - 4 * 2
    assert report.convolutions == {"fp32": plain + 8} if precision == "fp32" else {"fp16": plain, "fp32": 8}
    with backend.load(tmp_path / "net.onnx") as runner:
        for batch in (1, 2, 5, 64):
            # Not the exported sample, and larger than what the running statistics expect.
            x = 2 * torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
            with torch.inference_mode():
                expected = network(x).numpy()
            (found,) = runner.infer({runner.inputs[0].name: x.numpy()}).values()
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()
