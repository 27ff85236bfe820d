"""SE networks in int8, fp16 and bf16, on the engines that build or run here, with real data."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch

from sesurgery import pipeline
from sesurgery.backends._nvidia.compiled import compile_
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.openvino import OpenVINO
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.lowering._dataflow import Dataflow
from sesurgery.pipeline.train import data_of

pytestmark = pytest.mark.slow
RUN = Path("runs/digits")
SPEC = Path(__file__).parents[2] / "specs" / "digits.yaml"
RTX = TensorRTForRTX()
no_rtx = pytest.mark.skipif(RTX.probe().builds is not None, reason=str(RTX.probe().builds))
no_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module", autouse=True)
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SE-ResNet-20, trained on the digits for as long as it takes to pass 90 %; the current folder."""
    folder = tmp_path_factory.mktemp("int8")
    before = Path.cwd()
    os.chdir(folder)
    Path("digits.yaml").write_text(SPEC.read_text().replace("epochs: 6", "epochs: 3\n  threads: 1"))
    run = pipeline.apply(pipeline.load_spec("digits.yaml"), pipeline.Workspace(), "digits.yaml").folder
    pipeline.train(run)
    yield folder
    os.chdir(before)


def build(given: Path, **wanted: object) -> pipeline.engines.Built:
    (built,) = pipeline.build_engines(given, pipeline.Workspace(), (pipeline.engine(wanted),))
    return built


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=no_openvino)])
def test_int8_loses_at_most_one_point_of_top1(backend: str) -> None:
    built = build(RUN, backend=backend, precision="int8")
    assert dict(built.report.convolutions) == {"int8": 21, "fp32": 18}
    for entry in pipeline.verify(built.path).section.parity:
        assert entry.report.reference_top1 > 0.9
        assert entry.report.candidate_top1 >= entry.report.reference_top1 - 0.01


def test_onnxruntime_has_an_integer_kernel_for_every_int8_convolution() -> None:
    built = build(RUN, precision="int8")
    graph = onnx.load(built.path).graph
    assert sum(node.op_type == "QLinearConv" for node in graph.node) == 21
    assert not built.report.notes


@no_rtx
@no_openvino
def test_one_file_builds_in_tensorrt_rtx_and_keeps_its_top1_in_onnxruntime_and_openvino() -> None:
    built = build(RUN, backend="tensorrt-rtx", precision="int8")
    assert dict(built.report.convolutions) == {"int8": 21, "fp32": 18}
    source = Path(built.manifest.parents[0].path)
    held_out = data_of(pipeline.load_spec("digits.yaml")).held_out
    feeds = {"input": held_out.images.numpy()}

    def top1(logits: np.ndarray) -> float:
        return float((logits.argmax(1) == held_out.labels.numpy()).mean())

    fp32 = onnxruntime.InferenceSession("export/digits.onnx", providers=["CPUExecutionProvider"])
    least = top1(fp32.run(None, feeds)[0]) - 0.01
    same = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    assert top1(same.run(None, feeds)[0]) >= least
    # OpenVINO takes the very same file, and its plugin has integer kernels for it.
    other = OpenVINO()
    assert dict(other.build(source, Path("same.xml"), BuildOptions("int8", BatchRange(1, 32, 512))).convolutions) == {
        "int8": 21,
        "fp32": 18,
    }
    with other.load(Path("same.xml")) as runner:
        (logits,) = runner.infer(feeds).values()
    assert top1(logits) >= least


@no_rtx
def test_the_compiler_makes_integer_kernels_of_them() -> None:
    source = Path(build(RUN, backend="tensorrt-rtx", precision="int8").manifest.parents[0].path)
    compiled = compile_(RTX, source, BuildOptions("int8", BatchRange(1, 1, 1)))
    convolutions = [kernel for kernel in compiled.kernels if kernel.fused.lower().startswith("corr")]
    assert sum({tensor.dtype for tensor in kernel.inputs} == {"Int8"} for kernel in convolutions) >= 21


@no_rtx
def test_bf16_builds_with_bf16_convolutions_and_fp32_gates() -> None:
    built = build(RUN, backend="tensorrt-rtx", precision="bf16")
    assert dict(built.report.convolutions) == {"bf16": 21, "fp32": 18}


@no_rtx
def test_seresnet50_in_fp16_has_no_fp32_convolution_but_those_of_gates() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("seresnet50", pretrained=False).eval()
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, 64, 64),), dynamo=True, opset_version=20, dynamic_shapes=({0: "batch"},)
    )
    program.save("seresnet50.onnx")
    np.save("samples.npy", np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32))
    wanted = {"backend": "tensorrt-rtx", "precision": "fp16", "calibration": {"file": "samples.npy"}}
    built = build(Path("seresnet50.onnx"), **wanted)
    assert dict(built.report.convolutions) == {"fp16": 53, "fp32": 32}
    flow = Dataflow(onnx.load(built.manifest.parents[0].path))
    gates = flow.gates()
    single = [node for node in flow.nodes if node.op_type.startswith("Conv") and flow.dtype(node.output[0]) == 1]
    assert len(single) == 32
    assert all(node.output[0] in gates for node in single)
