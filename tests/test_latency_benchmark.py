"""benchmarks/gpu/latency.py on a tiny network on the CPU: all of its rows, and its file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu" / "latency.py"


@pytest.mark.slow
def test_the_benchmark_runs_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    ways, networks = ["eager", "onnxruntime"], ["plain", "ours", "hoisted"]
    arguments = ["--smoke", "--ways", *ways, "--networks", *networks, "--output", str(tmp_path / "found.json")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["left_out"] == []
    rows = {(row["way"], row["network"]): row for row in found["rows"]}
    # ONNX Runtime has the passes for ONNX: a form of torch's graph is not its.
    assert set(rows) == {("eager", name) for name in networks} | {("onnxruntime", name) for name in networks[:2]}
    assert all(row["difference"] < 1e-5 and row["median_ms"] > 0 for row in found["rows"])
    # Hoisting saves a reading and a writing of each map that is scaled.
    least = {name: rows["eager", name]["least_mb"] for name in networks}
    assert least["plain"] < least["hoisted"] < least["ours"]
