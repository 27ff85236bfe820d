"""SE as TensorRT-RTX compiles it after the default passes: close to the plain network, and the same numbers.

The bounds are what `python benchmarks/compiled_traffic.py` measured with TensorRT-RTX 1.7.1 and a little slack: another
version of the compiler may fuse otherwise, and then docs/free_se.md has to be measured again.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import timm
import torch
from torch import nn

from sesurgery.backends._nvidia.compiled import Compiled, compile_
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.lowering import _numerics, load
from sesurgery.lowering.base import run
from sesurgery.lowering.precision import Precision
from sesurgery.models.export import export
from sesurgery.spec.model import Export

BACKEND = TensorRTForRTX()
REASON = BACKEND.probe().builds
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def exported(name: str, folder: Path) -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The last norm of a branch starts at zero and would hide it.
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0, 0.1)
    export(network, (3, 224, 224), folder / "net.onnx", Export(check_batches=(1,), max_abs=1e-2))
    return onnx.load(folder / "net.onnx")


def compiled(model: onnx.ModelProto, precision: str, batch: BatchRange, folder: Path) -> Compiled:
    if precision == "fp16":
        model = run(model, [Precision()]).model
    onnx.save(model, folder / "compiled.onnx")
    return compile_(BACKEND, folder / "compiled.onnx", BuildOptions(precision, batch))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    names = ("resnet50", "seresnet50", "resnet18", "seresnet18")
    return {name: exported(name, tmp_path_factory.mktemp(name)) for name in names}


@pytest.mark.parametrize(
    ("plain", "precision", "batch", "kernels", "ratio"),
    [
        # Measured 1.042, 1.049, 1.042, 1.049: what the squeezes must read is 1.048.
        ("resnet50", "fp32", BatchRange(1, 1, 1), 107, 1.05),
        ("resnet50", "fp16", BatchRange(1, 1, 1), 107, 1.055),
        ("resnet50", "fp32", BatchRange(1, 8, 64), 107, 1.05),
        ("resnet50", "fp16", BatchRange(1, 8, 64), 107, 1.055),
        # Measured 1.132 and 1.138, where squeezes must read 1.111 and 1.107; fp16 has a cast of the taps in every gate.
        ("resnet18", "fp32", BatchRange(1, 1, 1), 52, 1.14),
        ("resnet18", "fp16", BatchRange(1, 1, 1), 60, 1.15),
    ],
)
def test_lowered_se_moves_little_more_than_the_plain_network(
    plain: str,
    precision: str,
    batch: BatchRange,
    kernels: int,
    ratio: float,
    networks: dict[str, onnx.ModelProto],
    tmp_path: Path,
) -> None:
    lowered = run(networks[f"se{plain}"], load(BACKEND.passes)).model
    found = compiled(lowered, precision, batch, tmp_path)
    assert len(found.kernels) <= kernels, found.fusions
    assert found.traffic <= ratio * compiled(networks[plain], precision, batch, tmp_path).traffic


@pytest.mark.parametrize("name", ["seresnet50", "seresnet18"])
def test_lowered_se_computes_what_it_did(name: str, networks: dict[str, onnx.ModelProto]) -> None:
    given = networks[name]
    lowered = run(given, load(BACKEND.passes), verify=True).model
    fed = _numerics.feeds(given, seed=1)
    assert _numerics.difference(_numerics.outputs(given, fed), _numerics.outputs(lowered, fed)) < 1e-5
