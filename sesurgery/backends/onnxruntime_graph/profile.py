"""What each layer of an engine takes, by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from sesurgery.backends.base import Array
from sesurgery.backends.onnxruntime_graph.providers import CPU
from sesurgery.backends.onnxruntime_graph.session import session_options

SUFFIX = "_kernel_time"
WARM = 3


def layer_times(engine: Path, feeds: Mapping[str, Array], runs: int, threads: int | None) -> dict[str, float]:
    """Seconds a run of every layer that ran, by its name in the optimised graph; the profiler's own cost is in them."""
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
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(SUFFIX) and not _encloses(event):
            times[event["name"].removesuffix(SUFFIX)].append(1e-6 * event["dur"])
    return {name: statistics.median(found[WARM:] or found) for name, found in times.items()}


def _encloses(event: Mapping[str, object]) -> bool:
    """Whether a node only runs others, whose times are in its own."""
    arguments = event.get("args")
    return isinstance(arguments, dict) and arguments.get("op_name") in ("If", "Loop", "Scan")
