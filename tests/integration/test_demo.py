"""The demo from end to end on a network that trains in seconds, with an engine that falls short of its parity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.tiny import SPEC

SHORT = SPEC.replace("epochs: 4", "epochs: 1").replace("{batches: [64]}", "{batches: [64], fp32: {max_abs: 1.0e-12}}")

# What it has imported by its end, but for what the networks and engines of its specs need.
HEARD = """
import atexit
import sys
from sesurgery.cli import main

@atexit.register
def tell():
    names = ("timm", "ultralytics", "openvino", "tensorrt", "tensorrt_rtx", "onnx_graphsurgeon", "ray", "optuna")
    print("too much:", *(name for name in names if name in sys.modules), file=sys.stderr)

main()
"""


@pytest.mark.slow
def test_the_demo_ends_with_a_verdict_and_a_report_where_parity_falls_short(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SHORT)
    (tmp_path / "large.yaml").write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-c", HEARD, "demo", "--small", "short.yaml", "--large", "large.yaml", "--seeds", "1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    first, *lines = done.stdout.strip().splitlines()
    assert first == "first: do not ship what falls short of its parity (1 criterion missed):"
    begun = [" ".join(line.split()[:2]) for line in lines if not line.startswith(" ") and line]
    assert begun[:3] == ["accuracy, CifarResNet", "cost in", "take onnxruntime"]
    assert "180 held-out samples, 1 training each" in done.stdout
    (costs,) = [line for line in lines if line.startswith("  onnxruntime fp32")]
    # As exported and after lowering, each with its interval.
    assert costs.count(" to ") == 2
    assert sum(line.startswith("doubtful: ") for line in lines) <= 1
    assert lines[-1].startswith("the report, for a browser: runs/short/report.html")
    assert (tmp_path / "runs" / "short" / "report.html").is_file()
    assert "error[SE701]" in done.stderr
    assert done.stderr.splitlines()[-1] == "too much:"
