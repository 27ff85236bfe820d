"""SE networks in int8, fp16 and bf16, on the engines that build or run here, with real data."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from fixtures.engines import source_of
from fixtures.sharing import Once

from sesurgery import pipeline
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.inductor_package.build import lacks
from sesurgery.backends.openvino import OpenVINO
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.cli import program
from sesurgery.networks import checkpoint
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.pipeline import EnginesRequest
from sesurgery.pipeline.build_engine.building import BuildResult
from sesurgery.training.data import data_of
from sesurgery.workspace import read_manifest

pytestmark = pytest.mark.slow
RUN = Path("runs/digits")
SPEC = Path(__file__).parents[2] / "specs" / "digits.yaml"
RTX = TensorRTForRTX()
no_rtx = pytest.mark.skipif(RTX.probe().builds is not None, reason=str(RTX.probe().builds))
no_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


def learn_the_digits() -> None:
    """SE-ResNet-20, trained for as long as it takes to read nearly all."""
    for epochs in (3, 6, 12):
        text = SPEC.read_text().replace("epochs: 6", f"epochs: {epochs}\n  threads: 1")
        # A quarter of the pixels are enough to read them by.
        Path("digits.yaml").write_text(text.replace("[3, 32, 32]", "[3, 16, 16]"))
        pipeline.apply(pipeline.load_spec("digits.yaml"), pipeline.Workspace(), "digits.yaml")
        top1 = pipeline.train(pipeline.TrainRequest(RUN)).result.top1
        if top1 is not None and top1 > 0.95:
            return
        shutil.rmtree("runs")
    raise AssertionError(f"12 epochs bring it to {top1:.1%}")


@pytest.fixture(scope="module", autouse=True)
def trained(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with that run, as the current one."""
    folder = tmp_path_factory.mktemp("int8") / "copy"
    shutil.copytree(once("digits", learn_the_digits), folder, copy_function=shutil.copy2)
    with contextlib.chdir(folder):
        yield folder


def build(given: Path, **wanted: object) -> BuildResult:
    (built,) = pipeline.build_engines(EnginesRequest(given, pipeline.Workspace(), (pipeline.engine(wanted),)))
    return built


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=no_openvino)])
def test_int8_loses_at_most_one_point_of_top1(backend: str) -> None:
    built = build(RUN, backend=backend, precision="int8")
    assert dict(built.report.convolutions) == {"int8": 21, "fp32": 18}
    for entry in pipeline.verify(built.path).section.parity:
        assert entry.report.reference_top1 > 0.9
        assert entry.report.candidate_top1 >= entry.report.reference_top1 - 0.01


# Neither torch nor the pipeline: an emulator takes minutes to import them.
ANSWERS = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load("images.npy")
logits = [session.run(None, {"input": each})[0] for each in np.split(images, 8)]
np.save("answers.npy", np.concatenate(logits).argmax(1))
"""
IMAGES = 240


@pytest.mark.parametrize(
    "emulator",
    [
        (),
        pytest.param(
            ("qemu-x86_64", "-cpu", "Haswell"),
            marks=pytest.mark.skipif(
                shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)"
            ),
        ),
    ],
    ids=["here", "Haswell"],
)
def test_an_int8_file_agrees_with_the_model_on_98_percent_of_the_digits(emulator: tuple[str, ...]) -> None:
    """The file that engines are built of: an engine of ONNX Runtime is laid out for the processor that built it."""
    source = source_of(build(RUN, precision="int8"))
    held_out = data_of(pipeline.load_spec("digits.yaml")).held_out
    np.save("images.npy", held_out.images[:IMAGES].numpy())
    with torch.inference_mode():
        expected = checkpoint.read(RUN, pipeline.catalogs()).network.eval()(held_out.images[:IMAGES]).argmax(1)
    done = subprocess.run(
        [*emulator, sys.executable, "-c", ANSWERS, str(source)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    agreement = float((np.load("answers.npy") == expected.numpy()).mean())
    print(f"agreement {agreement:.2%}")
    assert agreement >= 0.98


def test_onnxruntime_has_an_integer_kernel_for_every_int8_convolution() -> None:
    built = build(RUN, precision="int8")
    graph = onnx.load(built.path).graph
    assert sum(node.op_type == "QLinearConv" for node in graph.node) == 21
    assert not built.report.notes


@no_rtx
@no_openvino
def test_one_file_builds_in_tensorrt_rtx_and_keeps_its_top1_in_onnxruntime_and_openvino() -> None:
    # On a GPU 8 bits are right; this file is for processors too.
    built = build(RUN, backend="tensorrt-rtx", precision="int8", calibration={"weights": 7}, name="any")
    # A gate's first projection is a sum after the spatial hoist, its second one a convolution.
    assert dict(built.report.convolutions) == {"int8": 21, "fp32": 9}
    source = next(iter(built.manifest.parent_files(built.path)))
    held_out = data_of(pipeline.load_spec("digits.yaml")).held_out
    feeds = {"input": held_out.images[:].numpy()}

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
        "fp32": 9,
    }
    with other.load(Path("same.xml")) as runner:
        (logits,) = runner.infer(feeds).values()
    assert top1(logits) >= least


@no_rtx
def test_the_compiler_makes_integer_kernels_of_them() -> None:
    built = build(RUN, backend="tensorrt-rtx", precision="int8")
    source = next(iter(built.manifest.parent_files(built.path)))
    compiled = RTX.compile_kernels(source, BuildOptions("int8", BatchRange(1, 1, 1)))
    convolutions = [kernel for kernel in compiled.kernels if kernel.fused.lower().startswith("corr")]
    assert sum({tensor.dtype for tensor in kernel.inputs} == {"Int8"} for kernel in convolutions) >= 21


@no_openvino
def test_bf16_loses_at_most_one_point_of_top1() -> None:
    if (lacking := lacks("bf16", "cpu")) is not None:
        pytest.skip(lacking)
    built = build(RUN, backend="openvino", precision="bf16")
    assert dict(built.report.convolutions) == {"bf16": 39}
    # The plugin has one precision for all, so none can be named as kept.
    assert built.manifest.details.kept_fp32 == ()
    for entry in pipeline.verify(built.path).section.parity:
        assert entry.report.reference_top1 > 0.9
        assert entry.report.candidate_top1 >= entry.report.reference_top1 - 0.01
        # As far off as 8 bits are: it did not compute in fp32.
        assert entry.report.max_abs > 1e-3


@no_rtx
def test_bf16_builds_with_bf16_convolutions_and_fp32_gates() -> None:
    built = build(RUN, backend="tensorrt-rtx", precision="bf16")
    assert dict(built.report.convolutions) == {"bf16": 21, "fp32": 9}


@no_rtx
def test_build_engine_fp16_of_seresnet50_leaves_no_convolution_in_fp32_but_those_of_gates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands as a user gives them, at 224 x 224; fewer samples are looked at than by default."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SPEC.with_name("seresnet50.yaml"), "seresnet50.yaml")

    def sesurgery(*words: str) -> str:
        ended = CliRunner().invoke(program, words)
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    sesurgery("apply", "seresnet50.yaml")
    said = sesurgery("build-engine", "--fp16", "--backend", "tensorrt-rtx", "--calibration", "samples=8")
    assert said.startswith("convolutions: 53 in fp16, ")
    engine = Path("engines/seresnet50.tensorrt-rtx.fp16.engine")
    manifest = read_manifest(engine)
    flow = Dataflow(onnx.load(next(iter(manifest.parent_files(engine))), load_external_data=False))
    gates = gate_branches(flow)
    single = [node for node in flow.nodes if node.op_type.startswith("Conv") and flow.dtype(node.output[0]) == 1]
    assert manifest.details.convolutions == {"fp16": 53, "fp32": len(single)}
    assert all(node.output[0] in gates for node in single)
    # Every node of a gate is fp32, and is named with the reason.
    kept = {said.where for said in manifest.details.kept_fp32}
    # At its end a gate is cast, where it meets the map.
    branch = [flow.producer[name] for name in gates if flow.producer[name].op_type != "Cast"]
    assert len(branch) >= 16 * 4
    assert kept >= {node.name for node in branch}
    assert {flow.dtype(node.output[0]) for node in branch} == {1}

    layers = json.loads(sesurgery("inspect", str(engine), "--compiled", "--json"))["layers"]
    in_fp32 = {module for layer in layers if "Float" in layer["types"] for module in layer["modules"]}
    blocks = {f"layer{stage}.{unit}.se" for stage, units in enumerate((3, 4, 6, 3), 1) for unit in range(units)}
    assert {module for module in in_fp32 if ".se" in module} >= blocks
    # The classifier computes in fp16 and gives its answer in fp32.
    assert {module for module in in_fp32 if ".se" not in module} <= {"fc"}
    normed = {module for layer in layers for module in layer["modules"] if re.search(r"(bn\d|downsample\.1)$", module)}
    assert len(normed) == 53
    assert not normed & in_fp32
