"""Sessions of ONNX Runtime that compute something once: to compare, to check, to measure ranges, never to be timed."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime

CPU = ["CPUExecutionProvider"]
_SILENT = 4


def session(model: onnx.ModelProto | Path, *, optimised: bool = True, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU that says nothing; `model` is a path where weights stand outside the file.

    Without `optimised` the graph is computed as it is. 0 `threads` are all cores. What ONNX Runtime raises for a graph
    that it does not take has no base class but Exception.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    # A thread that has nothing to do would look for work at full speed, on a core that others may need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=CPU)
