"""int8 on processors that add pairs of 8-bit products in 16 bits, emulated here: 7 bits are right, 8 are refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

pytestmark = pytest.mark.slow
QEMU = shutil.which("qemu-x86_64")
HERE = str(Path(__file__).parents[2])
no_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)")
no_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")

NET = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 8, 8, 8] x) => (float[batch, 16, 8, 8] y)
{ a = Conv<pads=[1,1,1,1]>(x, first) b = Relu(a) c = Conv(b, second) y = Relu(c) }
"""
# Neither torch nor the pipeline: an emulator takes minutes to import them.
CHILD = """
import json, sys
import numpy as np, onnx
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.int8 import Quantize, ranges_of
from sesurgery.verification.integer_kernels import compare_kernels

model = onnx.load("planted.onnx")
samples = [{"x": image[None]} for image in np.load("samples.npy")]
ranges = ranges_of(model, samples, "minmax")
found = {}
for bits in (7, 8):
    report = compare_kernels(OnnxRuntime(), run(model, [Quantize(ranges, "uint8", bits)]).model, samples)
    first = report.first_apart
    found[bits] = {"largest": report.largest, "first": first and first.name}
print(json.dumps(found))
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a network whose weights are all as large as the largest, and bright samples."""
    monkeypatch.chdir(tmp_path)
    model = onnx.parser.parse_model(NET)
    for name, shape in (("first", (16, 8, 3, 3)), ("second", (16, 16, 1, 1))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(shape, 0.02, np.float32), name))
    onnx.save(model, "planted.onnx")
    np.save("samples.npy", np.random.default_rng(0).uniform(0.9, 1, size=(2, 8, 8, 8)).astype(np.float32))
    return tmp_path


def python(*words: str, emulator: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*emulator, sys.executable, *words],
        env={**os.environ, "PYTHONPATH": HERE, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@no_qemu
def test_on_a_haswell_onnxruntime_is_right_with_7_bits_and_found_wrong_with_8(planted: Path) -> None:
    ended = python("-c", CHILD, emulator=(str(QEMU), "-cpu", "Haswell"))
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["7"]["first"] is None
    assert found["7"]["largest"] < 1.01
    assert found["8"]["first"] == "Conv_0"
    assert found["8"]["largest"] > 50


@no_openvino
def test_a_file_that_saturates_is_refused_at_build_and_built_with_7_bits(planted: Path) -> None:
    """The command as a user gives it, OpenVINO held back to AVX2."""
    words = ("-c", "from sesurgery.cli import main; main()", "build-engine", "planted.onnx", "--int8")
    words += ("--backend", "openvino", "--calibration", "samples.npy")
    refused = python(*words, "--calibration", "weights=8", ONEDNN_MAX_CPU_ISA="AVX2")
    assert refused.returncode == 1, refused.stderr
    assert "error[SE605]: the integer kernels of openvino on this processor compute layer 'Conv_0'" in refused.stderr
    assert "let weights take 7" in refused.stderr
    assert not list(planted.glob("e*/planted*"))
    built = python(*words, ONEDNN_MAX_CPU_ISA="AVX2")
    assert built.returncode == 0, built.stderr
    assert "weights in 7 bits: the file is for any processor" in built.stderr
    assert "integer kernels: 2 layers on 2 samples are at most" in built.stderr
    assert (planted / "engines" / "planted.openvino.int8.xml").is_file()
