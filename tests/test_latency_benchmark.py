"""benchmarks/gpu/latency.py on a tiny network on the CPU: all of its rows, and its file."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from fixtures.processes import Own

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu" / "latency.py"


def benchmark(arguments: list[str]) -> None:
    """In a process of its own: the script, as a shell starts it."""
    sys.argv = [str(SCRIPT), *arguments]
    sys.path.insert(0, str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_the_benchmark_runs_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    ways, networks = ["eager", "onnxruntime"], ["plain", "ours", "hoisted"]
    arguments = ["--smoke", "--ways", *ways, "--networks", *networks, "--output", str(tmp_path / "found.json")]
    process = Own(benchmark, arguments)
    assert process.end() == 0, process.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["left_out"] == []
    rows = {(row["way"], row["network"]): row for row in found["rows"]}
    # ONNX Runtime has the passes for ONNX: a form of torch's graph is not its.
    assert set(rows) == {("eager", name) for name in networks} | {("onnxruntime", name) for name in networks[:2]}
    assert all(row["difference"] < 1e-5 and row["median_ms"] > 0 for row in found["rows"])
    # Hoisting saves a reading and a writing of each map that is scaled.
    least = {name: rows["eager", name]["least_mb"] for name in networks}
    assert least["plain"] < least["hoisted"] < least["ours"]
