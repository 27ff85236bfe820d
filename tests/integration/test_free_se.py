"""SE as TensorRT-RTX compiles it after the default passes: close to the plain network, and the same numbers.

The bounds are what `python benchmarks/compiled_traffic.py` measured with TensorRT-RTX 1.7.1 and a little slack: another
version of the compiler may fuse otherwise, and then docs/free_se.md has to be measured again.
"""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import timm
import torch
from click.testing import CliRunner
from fixtures.sharing import Once
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed
from torch import nn

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.kernels.compiled import Compiled
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.cli import program
from sesurgery.lowering import load
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision
from sesurgery.networks.export import export
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.batch import with_batch
from sesurgery.spec.export import Export

BACKEND = TensorRTForRTX()
REASON = BACKEND.probe().builds
pytestmark = pytest.mark.slow
needs_compiler = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def export_network(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The last norm of a branch starts at zero and would hide it.
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0, 0.1)
    export(network, (3, 224, 224), Path("net.onnx"), Export(check_batches=(1,), max_abs=1e-2))


def compiled(model: onnx.ModelProto, precision: str, batch: BatchRange, folder: Path) -> Compiled:
    if precision == "fp16":
        model = run(model, [Precision()]).model
    onnx.save(model, folder / "compiled.onnx")
    return BACKEND.compile_kernels(folder / "compiled.onnx", BuildOptions(precision, batch))


class Networks:
    """Networks of timm's as ONNX models: each is exported when a test first asks for it, once for all workers."""

    def __init__(self, once: Once) -> None:
        self.once = once

    def __getitem__(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.once(f"exported-{name}", lambda: export_network(name)) / "net.onnx")

    def lowered(self, name: str) -> onnx.ModelProto:
        """By the passes that pay for TensorRT for RTX."""

        def lower() -> None:
            onnx.save(run(self[name], load(BACKEND.passes)).model, "net.onnx")

        return onnx.load(self.once(f"lowered-{name}", lower) / "net.onnx")


@pytest.fixture(scope="module")
def networks(once: Once) -> Networks:
    return Networks(once)


@needs_compiler
@pytest.mark.parametrize(
    ("plain", "precision", "batch", "kernels", "ratio"),
    [
        # Measured 1.042, 1.049, 1.042, 1.049: what the squeezes must read is 1.048.
        ("resnet50", "fp32", BatchRange(1, 1, 1), 107, 1.05),
        ("resnet50", "fp16", BatchRange(1, 1, 1), 107, 1.055),
        ("resnet50", "fp32", BatchRange(1, 8, 64), 107, 1.05),
        ("resnet50", "fp16", BatchRange(1, 8, 64), 107, 1.055),
        # Measured 1.117 and 1.116, where squeezes must read 1.111 and 1.107.
        ("resnet18", "fp32", BatchRange(1, 1, 1), 50, 1.125),
        ("resnet18", "fp16", BatchRange(1, 1, 1), 50, 1.125),
    ],
)
def test_lowered_se_moves_little_more_than_the_plain_network(
    plain: str,
    precision: str,
    batch: BatchRange,
    kernels: int,
    ratio: float,
    networks: Networks,
    tmp_path: Path,
) -> None:
    found = compiled(networks.lowered(f"se{plain}"), precision, batch, tmp_path)
    assert len(found.kernels) <= kernels, found.fusions
    assert found.traffic <= ratio * compiled(networks[plain], precision, batch, tmp_path).traffic


@needs_compiler
@pytest.mark.parametrize("batch", [BatchRange(1, 1, 1), BatchRange(1, 8, 64)], ids=["batch 1", "open"])
def test_basic_blocks_in_fp16_have_fewer_kernels_and_bytes_than_as_exported(
    batch: BatchRange, networks: Networks, tmp_path: Path
) -> None:
    before = compiled(networks["seresnet18"], "fp16", batch, tmp_path)
    after = compiled(networks.lowered("seresnet18"), "fp16", batch, tmp_path)
    # Measured 55 and 48, with 8 gates.
    assert len(after.kernels) <= len(before.kernels) - 5, after.fusions
    assert after.traffic < 0.88 * before.traffic
    # No kernel of its own converts what a gate reads, or copies its map.
    assert not {"Cast", "MoveConc", "MoveReplConc", "Tran"} & set(after.fusions)


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_se_after_an_activation_scales_weights_where_the_batch_is_one(
    precision: str, networks: Networks, tmp_path: Path
) -> None:
    given = onnx.ModelProto()
    given.CopyFrom(networks["efficientnet_b0"])
    make_dim_param_fixed(given.graph, given.graph.input[0].type.tensor_type.shape.dim[0].dim_param, 1)
    lowered = run(given, load(BACKEND.passes), verify=True)
    before, after = (compiled(model, precision, BatchRange(1, 1, 1), tmp_path) for model in (given, lowered.model))
    assert len(after.kernels) <= len(before.kernels)
    # Measured 0.754 and 0.839; the scaled map of 5 blocks is smaller than their weights.
    assert after.traffic < (0.77 if precision == "fp32" else 0.85) * before.traffic
    assert sum("not fewer than the map's values" in edit.why for edit in lowered.edits) == 5


@pytest.mark.parametrize("name", ["seresnet50", "seresnet18"])
def test_lowered_se_computes_what_it_did(name: str, networks: Networks) -> None:
    given = networks[name]
    lowered = run(given, load(BACKEND.passes), verify=True).model
    fed = _numerics.feeds(given, seed=1)
    assert _numerics.difference(_numerics.outputs(given, fed), _numerics.outputs(lowered, fed)) < 1e-5


@needs_compiler
def test_any_file_is_lowered_from_the_command_line(networks: Networks, tmp_path: Path) -> None:
    source, target = tmp_path / "timm.onnx", tmp_path / "lowered.onnx"
    onnx.save(networks["seresnet50"], source)
    result = CliRunner().invoke(program, ["lower", str(source), "-o", str(target), "--for", "tensorrt-rtx"])
    assert result.exit_code == 0, result.output
    before, after = (compiled(onnx.load(path), "fp32", BatchRange(1, 1, 1), tmp_path) for path in (source, target))
    # Measured 224.7 and 120.5 MB.
    assert after.traffic < 0.55 * before.traffic


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="no blocked layout in this onnxruntime")
def test_onnx_runtime_changes_no_layout_for_the_gates(networks: Networks, tmp_path: Path) -> None:
    given = networks["seresnet50"]
    counts = {}
    for name, model in {"exported": given, "lowered": run(given, load(OnnxRuntime.passes), verify=True).model}.items():
        onnx.save(with_batch(model, 1), tmp_path / "net.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), options, providers=["CPUExecutionProvider"])
        if name == "lowered":
            OnnxRuntime().build(tmp_path / "net.onnx", tmp_path / "optimised.onnx", BuildOptions())
        graph = onnx.load(tmp_path / "optimised.onnx").graph
        weights = {tensor.name for tensor in graph.initializer}
        # A product with a constant scales weights: no map moves for it.
        nodes = [node for node in graph.node if node.op_type != "Mul" or not weights & set(node.input)]
        counts[name] = Counter("Reorder" if node.op_type.startswith("Reorder") else node.op_type for node in nodes)
    assert counts["exported"]["Reorder"] >= 60
    # The one before the classifier.
    assert counts["lowered"]["Reorder"] == 1
    assert not {"Mul", "Add", "Relu"} & set(counts["lowered"])
