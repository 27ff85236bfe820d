"""What each layer of an engine takes and moves, by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from sesurgery.backends.base import Array, LayerRun
from sesurgery.backends.onnxruntime_graph.providers import CPU
from sesurgery.backends.onnxruntime_graph.session import session_options

SUFFIX = "_kernel_time"
SIZES = ("activation_size", "parameter_size", "output_size")
"""What the profiler tells of a kernel in bytes. In a branch, weights of the graph around it count as activations."""
WARM = 3


def layer_runs(engine: Path, feeds: Mapping[str, Array], runs: int, threads: int | None) -> dict[str, LayerRun]:
    """Every layer that ran, by its name in the optimised graph; the profiler's own cost is in the times."""
    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(engine), options, providers=[CPU])
        for _ in range(WARM + runs):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, int | None] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(SUFFIX) and not _encloses(event):
            name = event["name"].removesuffix(SUFFIX)
            times[name].append(1e-6 * event["dur"])
            sizes[name] = _moved(event)
    return {name: LayerRun(statistics.median(found[WARM:] or found), sizes[name]) for name, found in times.items()}


def _moved(event: Mapping[str, Any]) -> int | None:
    told = event.get("args", {})
    return sum(int(told[size]) for size in SIZES) if all(size in told for size in SIZES) else None


def _encloses(event: Mapping[str, object]) -> bool:
    """Whether a node only runs others, whose times are in its own."""
    arguments = event.get("args")
    return isinstance(arguments, dict) and arguments.get("op_name") in ("If", "Loop", "Scan")
