"""constant_gates from a spec: a trained run, one of whose gates was made to say the same of every image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fixtures.talk import RecordingTalk

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering.squeezes import squeezes
from sesurgery.networks import checkpoint
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.pipeline import EnginesRequest, Workspace
from sesurgery.pipeline.specs import catalogs
from sesurgery.workspace import read_manifest

LOWERED = Path("export/folding.onnxruntime.fp32.onnx")
GATES = 3


def run_with(lowering: str, planted: int, name: str = "folding") -> Path:
    """A run with the trained weights, where so many second projections are zero: their gates are sigmoid(bias)."""
    text = Path("tiny.yaml").read_text() + f"export: {{lowering: {lowering}}}\n"
    Path(f"{name}.yaml").write_text(text)
    folder = pipeline.apply(pipeline.load_spec(f"{name}.yaml"), Workspace(), f"{name}.yaml").folder
    trained, made = (checkpoint.read(path, catalogs()) for path in (Path("runs/tiny"), folder))
    state = trained.network.state_dict()
    with torch.no_grad():
        for key in sorted(key for key in state if key.endswith("fc2.weight"))[:planted]:
            state[key].zero_()
    made.network.load_state_dict(state)
    checkpoint.save(folder, made.network, made.spec, made.plan, "test", made.manifest.details)
    return folder


def gates(path: Path | str) -> int:
    return len(squeezes(Dataflow(onnx.load(path))))


def answers(path: Path | str, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_a_gate_that_is_constant_is_folded_and_the_others_stay_with_their_figures(here: Path) -> None:
    talk = RecordingTalk()
    run = run_with("[constant_gates]", planted=1)
    (built,) = pipeline.build_engines(EnginesRequest(run, Workspace(), talk=talk))
    assert gates("export/folding.onnx") == GATES
    assert gates(LOWERED) == GATES - 1
    details = read_manifest(LOWERED).details
    (folded,) = details.lowered
    assert "constant within 0 on 256 samples: folded into" in folded.text
    assert len(details.not_lowered) == GATES - 1
    assert all(
        "from the middle of its range, 0.01 is allowed" in said.text
        and float(said.text.split("a channel is ")[1].split()[0]) > 0.01
        for said in details.not_lowered
    )
    assert details.lowering_samples == "256 samples of the training data of runs/folding"
    assert "constant_gates decides by 256 samples of the training data of runs/folding" in talk.said
    summary, effect = details.lowering_notes
    assert summary.startswith("1 of 3 gates are constant within 0.01, the others are 0.")
    assert effect.startswith("constant gates change outputs by up to ")
    assert effect.endswith("the top class of 0 of 256 samples")
    assert {summary, effect} <= set(talk.said)
    images = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    expected = answers("export/folding.onnx", images)
    assert np.abs(answers(built.path, images) - expected).max() < 1e-5 * np.abs(expected).max()
    assert pipeline.verify(built.path).failures == ()


def test_no_gate_is_folded_unless_the_spec_names_the_pass(here: Path) -> None:
    run = run_with("null", planted=GATES)
    pipeline.build_engines(EnginesRequest(run, Workspace()))
    assert gates(LOWERED) == GATES
    assert "constant_gates" not in pipeline.load_spec("folding.yaml").engines[0].backend.options.passes


def test_where_no_gate_is_constant_the_file_stays_and_it_is_said_how_far_off_they_are(here: Path) -> None:
    talk = RecordingTalk()
    (built,) = pipeline.build_engines(EnginesRequest(run_with("[constant_gates]", planted=0), Workspace(), talk=talk))
    assert list(built.manifest.parent_files(built.path)) == [Path("export/folding.onnx")]
    (summary,) = [line for line in talk.said if "gates are constant" in line]
    assert summary.startswith("0 of 3 gates are constant within 0.01, the others are 0.")


def test_the_samples_of_a_file_are_taken_where_one_is_given(here: Path) -> None:
    images = np.random.default_rng(1).normal(size=(8, 1, 8, 8)).astype(np.float32)
    name = onnx.load("export/tiny.onnx").graph.input[0].name
    np.savez("samples.npz", **{name: images})
    wanted = pipeline.engine({"calibration": {"file": "samples.npz"}})
    pipeline.build_engines(EnginesRequest(run_with("[constant_gates]", planted=2), Workspace(), (wanted,)))
    assert read_manifest(LOWERED).details.lowering_samples == "8 samples of samples.npz"
    assert gates(LOWERED) == GATES - 2


def test_a_file_that_came_from_no_run_needs_samples(here: Path) -> None:
    Path("theirs.onnx").write_bytes(Path("export/tiny.onnx").read_bytes())
    with pytest.raises(SesurgeryError, match=r"SE602.*constant_gates cannot start: it needs samples.*--calibration"):
        pipeline.build_engine(
            pipeline.BuildRequest(Path("theirs.onnx"), pipeline.engine(), Workspace(), lowering=("constant_gates",))
        )


def test_the_order_in_a_spec_does_not_matter(here: Path) -> None:
    """squeeze_hoist asks to come after constant_gates, and squeeze_pool after squeeze_hoist."""
    files = []
    for index, names in enumerate(
        ("[squeeze_pool, squeeze_hoist, constant_gates]", "[constant_gates, squeeze_hoist, squeeze_pool]")
    ):
        name = f"ordered{index}"
        pipeline.build_engines(EnginesRequest(run_with(names, planted=1, name=name), Workspace()))
        files.append(onnx.load(f"export/{name}.onnxruntime.fp32.onnx").graph)
    assert files[0].node == files[1].node
    assert files[0].initializer == files[1].initializer
