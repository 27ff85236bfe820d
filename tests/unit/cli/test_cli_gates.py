"""`sesurgery gates --prune --fine-tune`, `--drift`, `--fold` of a file, and `apply --weights` as a user types them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.planted import plant_constants
from safetensors.torch import load_file

from sesurgery import pipeline
from sesurgery.networks import checkpoint
from sesurgery.training.data import data_of
from sesurgery.workspace import RunManifest, read_manifest

RUN, WEIGHTS = "runs/tiny", "weights.safetensors"
FIRST = "se/layer1.0[0]"


@pytest.fixture
def constant(here: Path) -> Path:
    """The trained run with the gates of its first block made constant."""
    make_constant({})
    return here


def make_constant(changes: dict[str, object]) -> None:
    """Make the gates of the first block constant, and change the spec of the run."""
    run = checkpoint.read(Path(RUN), pipeline.catalogs())
    with torch.no_grad():
        run.network.get_submodule(run.plan.sites[0].module).fc2.weight.zero_()
    spec = run.spec.with_(changes)
    checkpoint.save(Path(RUN), run.network, spec, run.plan, run.manifest.command, run.manifest.details)


def shorter(path: Path) -> None:
    """The same spec with a training of two epochs on fewer samples, each of which is kept."""
    text = path.read_text().replace("epochs: 4", "epochs: 2, keep_epochs: 1")
    path.write_text(text.replace("held_out: 0.1", "held_out: 0.7"))


def test_a_pruned_network_is_trained_on_from_the_runs_weights_and_compared(sesurgery, constant):
    ended = sesurgery("gates", RUN, "--prune", "pruned.yaml", "--fine-tune", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)["prune"]
    assert (told["spec"], told["left_out"], told["kept"]) == ("pruned.yaml", [FIRST], {})
    tuned = told["fine_tuned"]
    assert (tuned["run"], tuned["began_with"], tuned["epochs"]) == ("runs/tiny-pruned", RUN, 4)
    assert (tuned["taken"]["fresh"], len(tuned["taken"]["left"])) == ([], 1)
    assert tuned["verdict"] in ("better", "worse", "not told apart")
    # What it began with is what the run's network is without its first block.
    began, own = (load_file(path) for path in (Path(tuned["run"]) / "applied.safetensors", Path(RUN) / WEIGHTS))
    assert began.keys() < own.keys()
    assert all(value.equal(own[key]) for key, value in began.items())
    # The figures are those of the runs themselves.
    top1 = tuned["top1"]
    scores = [pipeline.evaluate(Path(folder)).top1 for folder in (RUN, tuned["run"])]
    assert [top1["before"], top1["after"]] == pytest.approx(scores)
    assert tuned["removal"]["top1"] == [top1["at_removal"], top1["before"]]
    assert 0 <= top1["at_removal"] <= 1
    # Its engine, as `verify` finds it, is told of by the report too.
    engine = Path("engines/tiny-pruned.onnxruntime.fp32.onnx")
    assert tuned["unverified"] is None
    assert (tuned["parity"]["engine"], tuned["parity"]["verdict"]) == (engine.as_posix(), "passed")
    again = sesurgery("verify", str(engine), "--json")
    assert (again.code, json.loads(again.out)["engines"][0]["batches"]) == (0, tuned["parity"]["batches"])
    # The run that it began with is among the parents, by its digest, also after training.
    manifest = read_manifest(Path(tuned["run"]) / WEIGHTS, RunManifest)
    parent = manifest.parents[-1]
    assert (parent.path, parent.sha256) == ("../tiny/weights.safetensors", read_manifest(Path(RUN) / WEIGHTS).sha256)
    assert manifest.command == "sesurgery apply pruned.yaml --weights runs/tiny && sesurgery train"


def test_an_engine_of_the_pruned_network_that_falls_short_ends_it_as_it_ends_verify(sesurgery, here):
    # Less than what the sums of fp32 differ by in another order.
    make_constant({"parity.fp32": {"max_abs": 1e-12}, "train.epochs": 1})
    ended = sesurgery("gates", RUN, "--prune", "pruned.yaml", "--fine-tune", "--json")
    assert ended.code == 4
    assert "error[SE701]: tiny-pruned.onnxruntime.fp32.onnx at batch 64: max_abs: asked <= 1e-12" in ended.err
    told = json.loads(ended.out)["prune"]
    assert (told["spec"], told["fine_tuned"]["parity"]["verdict"]) == ("pruned.yaml", "failed")
    assert told["fine_tuned"]["verdict"] in ("better", "worse", "not told apart")
    again = sesurgery("verify", "engines/tiny-pruned.onnxruntime.fp32.onnx")
    assert again.code == 4
    # The same failure, in the same words.
    failures = [[line for line in each.err.splitlines() if "SE701" in line] for each in (ended, again)]
    assert failures[0] == failures[1] != []


@pytest.mark.parametrize(("what", "why"), [("obstacle", "was not built: "), ("can_run", "was built, and cannot run")])
def test_an_engine_that_is_not_for_this_machine_is_named_and_not_verified(what, why, sesurgery, here, monkeypatch):
    module = importlib.import_module("sesurgery.pipeline.fine_tune")
    monkeypatch.setattr(module, what, lambda _: "it is of another machine")
    make_constant({"train.epochs": 1})
    ended = sesurgery("gates", RUN, "--prune", "pruned.yaml", "--fine-tune")
    assert ended.code == 0, ended.err
    told = ended.out.splitlines()[-1]
    assert told.startswith("parity: no engine was verified: ")
    assert why in told
    assert told.endswith("it is of another machine")


def test_apply_with_weights_says_what_it_took_and_what_is_fresh(sesurgery, here):
    text = Path("tiny.yaml").read_text()
    Path("fewer.yaml").write_text(text.replace("at: residual", "at: residual\n    except: layer1.0"))
    ended = sesurgery("apply", "fewer.yaml", "--weights", RUN)
    assert ended.code == 0, ended.err
    assert "weights of runs/tiny: " in ended.err
    assert "1 left over (layer1.0." in ended.err
    assert "fresh" not in ended.err
    ended = sesurgery("apply", "tiny.yaml", "--weights", "runs/fewer")
    assert "1 fresh (layer1.0." in ended.err
    assert read_manifest(Path("runs/tiny-2") / WEIGHTS).command == "sesurgery apply tiny.yaml --weights runs/fewer"


@pytest.mark.parametrize(
    ("changes", "weights", "why"),
    [
        (("reduction: 4", "reduction: 2"), RUN, "SE401"),
        (("reduction: 4", "reduction: 4"), "runs/nowhere", "SE402"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_no_run_is_left(changes, weights, why, sesurgery, here):
    Path("other.yaml").write_text(Path("tiny.yaml").read_text().replace(*changes))
    ended = sesurgery("apply", "other.yaml", "--weights", weights)
    assert ended.code == 1
    assert why in ended.err
    assert not Path("runs/other").exists()


def test_blocks_whose_constant_flips_few_answers_are_left_out_too(sesurgery, here):
    """Any block's constant flips at most all answers, and none is sure to flip not one."""
    ended = sesurgery("gates", RUN, "--prune", "all.yaml", "--flips", "1")
    assert ended.code == 1
    assert "no block of runs/tiny pays" in ended.err
    ended = sesurgery("gates", RUN, "--prune", "none.yaml", "--flips", "0")
    assert ended.code == 1
    assert "every block of runs/tiny pays" in ended.err
    needless = pipeline.needless(Path(RUN), pipeline.Workspace(), 1.0)
    shares = sorted(prediction.flips.high for prediction in needless.values())
    between = (shares[0] + shares[1]) / 2 if shares[0] < shares[1] else None
    if between is not None:
        ended = sesurgery("gates", RUN, "--prune", "some.yaml", "--flips", str(between))
        assert ended.code == 0, ended.err
        assert ended.err.count("se/layer") == 1


def test_the_gates_of_every_kept_epoch_are_told_and_drawn(sesurgery, empty):
    shorter(Path("tiny.yaml"))
    assert sesurgery("train", "tiny.yaml").code == 0
    kept = sorted(path.name for path in Path("runs/tiny/train/epochs").iterdir())
    assert kept == ["0001.safetensors", "0002.safetensors"]
    ended = sesurgery("gates", RUN, "--drift", "--json", "--picture", "moved.png", "--samples", "5")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert [each["epoch"] for each in told["drift"]] == [0, 1, 2]
    # After the last epoch they are those of the run.
    for block, last in zip(told["blocks"], told["drift"][-1]["blocks"], strict=True):
        assert {key: block[key] for key in ("key", "mean", "std", "between_class")} == last
    assert told["drift"][0]["blocks"] != told["drift"][1]["blocks"]
    assert Path("moved.png").read_bytes().startswith(b"\x89PNG")
    text = sesurgery("gates", RUN, "--drift", "--samples", "5").out
    assert text.count(FIRST) == 4
    # Starting again removes them.
    Path("runs/tiny/train/epochs/0009.safetensors").write_bytes(b"old")
    assert sesurgery("train", RUN, "--restart").code == 0
    assert sorted(path.name for path in Path("runs/tiny/train/epochs").iterdir()) == kept


def test_no_epoch_is_kept_unasked_and_what_there_is_is_told(sesurgery, here):
    assert not Path(RUN, "train/epochs").exists()
    told = json.loads(sesurgery("gates", RUN, "--drift", "--json", "--samples", "5").out)
    assert [each["epoch"] for each in told["drift"]] == [0, 4]


def test_a_run_that_was_not_trained_has_no_drift(sesurgery, empty):
    assert sesurgery("apply", "tiny.yaml").code == 0
    ended = sesurgery("gates", RUN, "--drift")
    assert ended.code == 1
    assert "keep_epochs" in ended.err


@pytest.mark.parametrize("option", [["--fine-tune"], ["--flips", "0.1"]])
def test_what_goes_with_prune_is_refused_without_it(option, sesurgery):
    ended = sesurgery("gates", RUN, *option)
    assert (ended.code, ended.out) == (2, "")
    assert "go with --prune" in ended.err


@pytest.fixture
def file(here: Path) -> Path:
    """The file of the trained run, with the gates of its first block nearly constant, and 40 samples of it."""
    plant_constants(Path(RUN), 0)
    held_out = data_of(checkpoint.read_spec(Path(RUN), pipeline.catalogs())).held_out
    np.savez("x.npz", input=held_out.images[:40].numpy(), labels=held_out.labels[:40].numpy())
    return pipeline.export(Path(RUN), pipeline.Workspace()).path


def test_gates_of_a_file_are_folded_and_nothing_is_left_behind(sesurgery, file):
    before = sorted(Path().rglob("*"))
    ended = sesurgery("gates", str(file), "--inputs", "x.npz", "--fold", "--bound", "0.02", "--json")
    assert ended.code == 0, ended.err
    assert sorted(Path().rglob("*")) == before
    told = json.loads(ended.out)
    fold, keys = told["fold"], [block["key"] for block in told["blocks"]]
    assert [gate["key"] for gate in fold["gates"]] == keys
    assert [gate["key"] for gate in fold["gates"] if gate["folded"]] == keys[:1]
    assert (fold["bound"], fold["deciding"], fold["held_out"]) == (0.02, 20, 20)
    engine = fold["engine"]
    assert engine["flips"]["measured"]["samples"] == engine["flips"]["predicted"]["held_out"] == 20
    assert engine["latency"].keys() == {"value", "low", "high", "confidence", "per", "batch"}
    assert fold["commands"][0].startswith(f"sesurgery lower {file.as_posix()} -o tiny.folded.onnx ")


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (["--fold", "--price"], "an ONNX file does not say what its blocks are"),
        (["--price"], "an ONNX file does not say what its blocks are"),
        (["--drift"], "an ONNX file was not trained here"),
        (["--prune", "pruned.yaml"], "an ONNX file has no spec"),
    ],
)
def test_what_needs_a_run_is_refused_for_a_file(option, why, sesurgery):
    ended = sesurgery("gates", "net.onnx", "--inputs", "x.npz", *option)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
