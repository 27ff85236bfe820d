"""ONNX Runtime's providers: what it says it has is what runs, and falling back to the CPU is an error."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sesurgery import pipeline
from sesurgery.backends.base import BuildOptions
from sesurgery.backends.onnxruntime import PROVIDERS, OnnxRuntime
from sesurgery.diagnostics import SesurgeryError

AVAILABLE = onnxruntime.get_available_providers()
without_cuda = pytest.mark.skipif("CUDAExecutionProvider" in AVAILABLE, reason="this onnxruntime has CUDA")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_runs_where_onnxruntime_has_it(provider: str) -> None:
    found = OnnxRuntime(provider=provider).probe()
    assert found.builds is None
    assert (found.runs is None) == (PROVIDERS[provider][0] in AVAILABLE)
    assert "cpu" in found.notes[0]


@without_cuda
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_missing_is_named_with_the_package_that_has_it(provider: str) -> None:
    found = OnnxRuntime(provider=provider).probe()
    assert found.runs is not None
    assert PROVIDERS[provider][0] in found.runs
    assert "onnxruntime-gpu" in str(found.remedy)


@without_cuda
def test_an_engine_for_a_gpu_is_built_here_and_not_run_here(fp32: Path, tmp_path: Path, images) -> None:
    backend = OnnxRuntime(provider="cuda")
    report = backend.build(fp32, tmp_path / "e.onnx", BuildOptions())
    assert report.convolutions == {"fp32": 3}
    # The file itself: what a GPU provider makes of it is made at every load.
    before, after = onnx.load(fp32), onnx.load(tmp_path / "e.onnx")
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    with pytest.raises(SesurgeryError, match=r"SE603.*no CUDAExecutionProvider"):
        backend.load(tmp_path / "e.onnx")
    with OnnxRuntime().load(tmp_path / "e.onnx") as runner, OnnxRuntime().load(fp32) as reference:
        np.testing.assert_array_equal(runner.infer(images(2))["y"], reference.infer(images(2))["y"])


@without_cuda
def test_falling_back_to_the_cpu_is_an_error(fp32: Path, tmp_path: Path, monkeypatch) -> None:
    """What onnxruntime-gpu does without a driver: it lists CUDA, warns in its log, and falls back to the CPU."""
    backend = OnnxRuntime(provider="cuda")
    backend.build(fp32, tmp_path / "e.onnx", BuildOptions())
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*PROVIDERS["cuda"]])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: session(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(SesurgeryError, match=r"SE603.*fell back from CUDAExecutionProvider to CPUExecutionProvider"):
        backend.load(tmp_path / "e.onnx")


def test_a_spec_names_the_provider_and_no_unknown_one() -> None:
    chosen = pipeline.engine({"backend": {"backend": "onnxruntime", "provider": "cuda"}})
    assert chosen.backend.options == OnnxRuntime(provider="cuda")
    with pytest.raises(SesurgeryError, match=r"SE105.*unknown provider 'rocm'"):
        pipeline.engine({"backend": {"backend": "onnxruntime", "provider": "rocm"}})
