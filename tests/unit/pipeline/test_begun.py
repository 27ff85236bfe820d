"""What an earlier training left in a run is never lost unasked, and training starts from what was applied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.artifacts import alone, digest_file
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline import Workspace
from sesurgery.training import begun
from sesurgery.training.loop.record import Recorder
from sesurgery.workspace import read_manifest

RUN = Path("runs/tiny")
WEIGHTS = RUN / "weights.safetensors"
CHECKPOINT = RUN / "train" / "last.ckpt"


class Killed(BaseException):
    """Ends the process at a point, as kill -9 would."""


def applied() -> Path:
    return pipeline.apply(pipeline.load_spec("tiny.yaml"), Workspace(), "tiny.yaml").folder


def killed(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Train, and end where a function would be called."""

    def kill(*arguments: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, kill)
        with pytest.raises(Killed):
            pipeline.train(pipeline.TrainRequest(RUN))


def test_training_a_trained_run_is_refused_and_changes_nothing(here):
    before = digest_file(WEIGHTS), digest_file(CHECKPOINT)
    with pytest.raises(SesurgeryError, match=r"SE405.*runs/tiny is trained already: 4 epochs(.|\n)*--restart"):
        pipeline.train(pipeline.TrainRequest(RUN))
    assert (digest_file(WEIGHTS), digest_file(CHECKPOINT)) == before


def test_a_restart_begins_with_the_weights_that_were_applied(here):
    before = digest_file(WEIGHTS)
    assert digest_file(RUN / begun.APPLIED) == read_manifest(WEIGHTS).details.applied != before
    pipeline.train(pipeline.TrainRequest(RUN, restart=True))
    # The same weights from the same start: so long as one machine trains, engines of the run are still its own.
    assert digest_file(WEIGHTS) == before


def test_a_restart_without_the_applied_weights_is_refused(here):
    (RUN / begun.APPLIED).unlink()
    with pytest.raises(SesurgeryError, match=r"SE402.*applied\.safetensors(.|\n)*sesurgery train tiny\.yaml"):
        pipeline.train(pipeline.TrainRequest(RUN, restart=True))


def test_a_training_that_was_stopped_is_kept(empty, monkeypatch):
    applied()
    killed(monkeypatch, Recorder, "on_train_batch_end")
    before = digest_file(CHECKPOINT)
    with pytest.raises(SesurgeryError, match=r"SE405.*stopped after 0 of 4 epochs(.|\n)*--resume(.|\n)*--restart"):
        pipeline.train(pipeline.TrainRequest(RUN))
    assert digest_file(CHECKPOINT) == before
    assert pipeline.train(pipeline.TrainRequest(RUN, restart=True)).result.top1 is not None


def test_one_killed_before_its_weights_were_written_goes_on_to_the_same_end(here, monkeypatch):
    before = digest_file(WEIGHTS)
    shutil.rmtree("runs")
    applied()
    killed(monkeypatch, checkpoint, "save")
    assert digest_file(WEIGHTS) != before
    with pytest.raises(SesurgeryError, match=r"SE405.*ended before its weights were written(.|\n)*--resume"):
        pipeline.train(pipeline.TrainRequest(RUN))
    pipeline.train(pipeline.TrainRequest(RUN, resume=True))
    assert digest_file(WEIGHTS) == before


def test_one_killed_between_weights_and_manifest_is_whole(here, monkeypatch):
    before = digest_file(WEIGHTS)
    shutil.rmtree("runs")
    applied()
    real = Path.replace

    def replace(path: Path, target: Path) -> None:
        if path.name.endswith(".manifest.next"):
            raise Killed
        real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            pipeline.train(pipeline.TrainRequest(RUN))
    assert digest_file(WEIGHTS) == before
    assert pipeline.evaluate(RUN).samples == 180
    assert read_manifest(WEIGHTS).details.epochs == 4


def test_going_on_needs_no_weights_but_the_checkpoints(here):
    before = digest_file(WEIGHTS)
    WEIGHTS.write_bytes(b"damaged")
    with pytest.raises(SesurgeryError, match="SE401"):
        pipeline.evaluate(RUN)
    pipeline.train(pipeline.TrainRequest(RUN, resume=True))
    assert digest_file(WEIGHTS) == before


def test_a_damaged_checkpoint_is_not_thrown_away_unasked(here):
    CHECKPOINT.write_bytes(b"damaged")
    with pytest.raises(SesurgeryError, match=r"SE405.*cannot be read(.|\n)*--restart"):
        pipeline.train(pipeline.TrainRequest(RUN))
    assert CHECKPOINT.read_bytes() == b"damaged"


def test_two_do_not_train_one_run(empty):
    applied()
    with alone(RUN, "training"):
        with pytest.raises(SesurgeryError, match=r"SE405.*another process is training runs/tiny"):
            pipeline.train(pipeline.TrainRequest(RUN))
        # A second `run` of the spec makes a run of its own.
        assert applied() == Path("runs/tiny-2")
    assert not (RUN / "train").exists()
