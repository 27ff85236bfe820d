"""The backend inductor: built from a run's network, verified against it, run at its batches, refused without a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixtures.sharing import Once
from fixtures.talk import RecordingTalk
from fixtures.tiny import RUN
from test_verify_drift import SITE, wrong_weight

from sesurgery import pipeline
from sesurgery.backends.base import BuildOptions, BuildReport
from sesurgery.backends.inductor import Inductor
from sesurgery.backends.inductor_package import build
from sesurgery.backends.inductor_package.build import lacks
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import EnginesRequest, Workspace
from sesurgery.workspace import read_manifest

REASON = Inductor().probe().builds
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
ENGINE = Path("engines/tiny.inductor.fp32.pt2")
WANTED = {"backend": {"backend": "inductor", "target": "cpu"}, "batch": {"min": 1, "opt": 1, "max": 128}}


@pytest.fixture(scope="session")
def packaged(built: Path, once: Once) -> Path:
    """The folder with an inductor engine beside the others. Not to be changed."""

    def make() -> None:
        shutil.copytree(built, ".", copy_function=shutil.copy2, dirs_exist_ok=True)
        pipeline.build_engines(EnginesRequest(RUN, Workspace(), (pipeline.engine(WANTED),)))

    return once("packaged", make)


@pytest.fixture
def here(packaged: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(packaged)


def test_an_engine_answers_as_the_trained_model_does(here: Path) -> None:
    verified = pipeline.verify(ENGINE)
    assert verified.failures == ()
    assert all(0 < entry.report.max_abs < 1e-4 for entry in verified.section.parity)


def test_its_manifest_says_what_was_folded_and_moved(here: Path) -> None:
    details = read_manifest(ENGINE).details
    assert details.convolutions == {"fp32": 7 + 2 + 2 * 3}
    assert sum("the norm is part of the convolution" in said.text for said in details.lowered) == 9
    # All squeezes of a basic block stand behind 3x3 convolutions.
    assert sum("squeeze_hoist_spatial is for those" in said.text for said in details.not_lowered) == 3


def test_an_engine_that_is_up_to_date_is_kept(here: Path) -> None:
    (again,) = pipeline.build_engines(EnginesRequest(RUN, Workspace(), (pipeline.engine(WANTED),)))
    assert again.why is None


def test_the_drift_of_a_package_names_the_block_that_is_wrong(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = build.compile_package

    def spoiled(request: build.CompileRequest, *rest: Any) -> BuildReport:
        wrong_weight(request.network)
        return honest(request, *rest)

    monkeypatch.setattr(build, "compile_package", spoiled)
    pipeline.build_engines(EnginesRequest(RUN, Workspace(), (pipeline.engine(WANTED),), again=True))
    section = pipeline.verify(ENGINE, drift=True).section
    assert (section.diagnosis.kind, section.diagnosis.site) == ("compiler", SITE)
    assert (section.drift.first.site, section.drift.before.error < 1e-4) == (SITE, True)
    assert sum(each.name.startswith("end of stage") for each in section.drift.errors) == 3


def test_every_batch_of_the_range_is_taken_and_no_other(here: Path) -> None:
    images = np.random.default_rng(0).normal(size=(128, 1, 8, 8)).astype(np.float32)
    with Inductor().load(ENGINE, threads=1) as runner:
        whole = runner.infer({"input": images})["logits"]
        for batch in (1, 2, 37):
            found = runner.infer({"input": images[:batch]})["logits"]
            np.testing.assert_allclose(found, whole[:batch], atol=1e-4)
        # Memory that lies otherwise: the package itself would read it as if it did not.
        turned = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(runner.infer({"input": turned})["logits"], whole)
        with pytest.raises(SesurgeryError, match=r"SE606.*has batch 129, the engine was built for 1 to 128"):
            runner.infer({"input": np.zeros((129, 1, 8, 8), np.float32)})
        with pytest.raises(SesurgeryError, match=r"SE606.*has dtype float64"):
            runner.infer({"input": np.zeros((1, 1, 8, 8))})


def test_timing_gives_positive_samples_and_leaves_torchs_threads_alone(here: Path) -> None:
    before = torch.get_num_threads()
    with Inductor().load(ENGINE, threads=before + 1) as runner:
        samples = runner.time({"input": np.zeros((2, 1, 8, 8), np.float32)}, 5)
    assert samples.shape == (5,)
    assert (samples > 0).all()
    assert torch.get_num_threads() == before
    with pytest.raises(SesurgeryError, match=r"SE603.*closed"):
        runner.infer({"input": np.zeros((2, 1, 8, 8), np.float32)})


@pytest.mark.skipif(lacks("bf16", "cpu") is not None, reason=str(lacks("bf16", "cpu")))
def test_a_bf16_engine_keeps_its_gates_in_fp32(here: Path) -> None:
    wanted = pipeline.engine({**WANTED, "precision": "bf16"})
    talk = RecordingTalk()
    (built,) = pipeline.build_engines(EnginesRequest(RUN, Workspace(), (wanted,), talk=talk))
    assert built.report.convolutions == {"bf16": 9, "fp32": 6}
    kept = {said.where: said.text for said in read_manifest(built.path).details.kept_fp32}
    gate = {"(mean)", "fc1 (conv2d)", "act (relu)", "fc2 (conv2d)", "gate (sigmoid)"}
    blocks = [f"layer{stage}.0.se" for stage in (1, 2, 3)]
    assert {name.removeprefix(block).lstrip(". ") for block in blocks for name in kept if block in name} == gate
    assert len(kept) == 3 * 5 + 1
    assert kept["layer2.0.se (mean)"] == "the squeeze of a gate: a sum over the whole map keeps 8 bits in bf16"
    assert kept["layer2.0.se.fc1 (conv2d)"] == "in the gate of squeeze 'layer2.0.se': its error would scale a whole map"
    assert kept["avgpool (adaptive_avg_pool2d)"] == "a sum over many values keeps 8 bits in bf16"
    summed = "12 in the gate of squeeze, 3 the squeeze of a gate, 1 a sum over many values keeps 8 bits in bf16"
    assert f"kept in fp32: {summed}; each is named in {built.path.name}.manifest.json" in talk.said
    assert "layer2.0.se.fc1 (conv2d)" in pipeline.write_report(RUN, Workspace()).html.read_text()
    for entry in pipeline.verify(built.path).section.parity:
        # As far from the model as 8 bits are, and no closer.
        assert entry.report.max_abs > 1e-4
        assert entry.report.min_cosine > 0.99


@pytest.mark.skipif(lacks("fp16", "cpu") is None, reason="this processor has fp16")
def test_a_precision_that_the_processor_lacks_is_refused(here: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*cannot build fp16 here: this processor has no fp16 arithmetic"):
        pipeline.build_engines(EnginesRequest(RUN, Workspace(), (pipeline.engine({**WANTED, "precision": "fp16"}),)))
    assert not Path("engines/tiny.inductor.fp16.pt2").exists()


def test_a_package_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: lambda image: image.mean((2, 3)) * 1.01)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(SesurgeryError, match=r"SE604.*not the one given: at batch 1 its outputs"):
        Inductor(target="cpu").build_network(network, (3, 4, 4), tmp_path / "x.pt2", BuildOptions())
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_that_came_from_no_run_is_refused(here: Path) -> None:
    onnx.save(onnx.load("export/tiny.onnx"), "foreign.onnx")
    with pytest.raises(SesurgeryError, match=r"SE603.*builds from a trained network, and foreign.onnx is only a file"):
        pipeline.build_engines(EnginesRequest(Path("foreign.onnx"), Workspace(), (pipeline.engine(WANTED),)))


def test_an_onnx_file_of_weights_that_are_gone_is_refused(
    here: Path, give_other_weights: Callable[[Path], None]
) -> None:
    give_other_weights(RUN)
    with pytest.raises(SesurgeryError, match=r"SE401.*was not exported from the weights that runs/tiny holds now"):
        pipeline.build_engines(
            EnginesRequest(Path("export/tiny.onnx"), Workspace(), (pipeline.engine(WANTED),), again=True)
        )


def test_a_machine_without_a_compiler_builds_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    ability = Inductor(target="cpu").probe()
    assert ability.builds == "it compiles C++, and no-such-compiler is not on this machine"
    assert ability.runs is None
    with pytest.raises(SesurgeryError, match=r"SE603.*no-such-compiler"):
        Inductor(target="cpu").build_network(torch.nn.Conv2d(3, 3, 1), (3, 4, 4), tmp_path / "x.pt2", BuildOptions())
    assert not (tmp_path / "x.pt2").exists()


def test_garbage_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(b"garbage")
    with pytest.raises(SesurgeryError, match=r"SE603.*cannot load"):
        Inductor().load(tmp_path / "x.pt2")
