"""`sesurgery inspect` on an engine of ONNX Runtime: the kernels of every graph in it, as they really run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

ENGINE = "engines/tiny.onnxruntime.fp32.onnx"
CONVOLUTIONS = 9
GATES = 3


def kernels_run(batch: int) -> set[str]:
    """The names of the kernels that ONNX Runtime counts when it runs the engine."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix, options.log_severity_level = True, "run", 3
    session = onnxruntime.InferenceSession(ENGINE, options, providers=["CPUExecutionProvider"])
    session.run(None, {"input": np.zeros((batch, 1, 8, 8), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    names = {event["name"] for event in events if event["cat"] == "Node"}
    return {name.removesuffix("_kernel_time") for name in names if name.endswith("_kernel_time")}


def test_both_graphs_of_an_engine_are_listed_with_their_convolutions(sesurgery, here):
    for words in (["inspect", ENGINE, "--compiled"], ["inspect", ENGINE]):
        ended = sesurgery(*words)
        assert ended.code == 0, ended.err
        assert "batch_1, for a batch of 1: " in ended.out
        (general,) = [line for line in ended.out.splitlines() if line.startswith("any_batch, for every other batch: ")]
        assert general.endswith(f"convolutions: {CONVOLUTIONS + 2 * GATES} in fp32")
        assert "nchwc.Conv+Relu " in ended.out
        assert "If" not in ended.out.split()


def test_what_is_listed_is_what_runs(sesurgery, here):
    graphs = {graph["name"]: graph for graph in json.loads(sesurgery("inspect", ENGINE, "--json").out)["graphs"]}
    assert set(graphs) == {"batch_1", "any_batch"}
    for name, batch in (("batch_1", 1), ("any_batch", 3)):
        listed = {layer["name"] for layer in graphs[name]["layers"]}
        assert len(listed) == graphs[name]["kernels"]
        assert {kernel for kernel in kernels_run(batch) if "/" in kernel} == listed | CHOICE


CHOICE = {"batch/Shape", "batch/Gather", "batch/1/Equal", "batch/1/If"}
"""What looks at the batch."""


def test_kernels_name_the_modules_they_carry_out(sesurgery, here):
    verbose = sesurgery("inspect", ENGINE, "-v").out
    assert "fp32  nchwc.Conv+Relu  layer1.0.se.act" in verbose
    Path("export/tiny.onnxruntime.fp32.onnx").unlink(missing_ok=True)
    nameless = sesurgery("inspect", ENGINE, "-v").out
    assert "layer1.0" not in nameless
    assert nameless.count("nchwc.Conv") == verbose.count("nchwc.Conv") > CONVOLUTIONS


def test_an_engine_takes_no_options_of_a_network(sesurgery, here):
    ended = sesurgery("inspect", ENGINE, "--account")
    assert ended.code == 2
    assert "an engine, go with none of --account" in ended.err


def test_an_engine_of_a_backend_without_a_list_says_which_have_one(sesurgery, here):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    assert sesurgery("build-engine", "--backend", "openvino").code == 0
    ended = sesurgery("inspect", "engines/tiny.openvino.fp32.xml")
    assert ended.code == 1
    assert "an engine of openvino, which has no list of kernels" in ended.err
