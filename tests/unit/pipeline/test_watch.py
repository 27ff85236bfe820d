"""Checkpoints of a training evaluated as they appear, and pictures of what came out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.tiny import RUN

from sesurgery import pipeline
from sesurgery.cli import program


def test_each_checkpoint_is_evaluated_once_until_the_training_ends(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, aside = RUN / "train" / "last.ckpt", RUN / "train" / "aside"
    last.rename(aside)
    waits: list[float] = []

    def appear(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            shutil.copy(aside, last)

    monkeypatch.setattr("time.sleep", appear)
    ((position, scores),) = pipeline.watch(RUN)
    assert (position, len(waits)) == ("after epoch 4", 2)
    assert scores.top1 == pipeline.evaluate(RUN).top1


def test_a_confusion_counts_every_sample_in_the_row_of_its_class(here: Path) -> None:
    scores = pipeline.evaluate(RUN)
    assert [sum(row) for row in scores.confusion] == [each.samples for each in scores.classes]
    assert sum(scores.confusion[index][index] for index in range(10)) == scores.correct


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_pictures_are_written(suffix: str, here: Path) -> None:
    for words in (["evaluate", RUN.as_posix()], ["compare", RUN.as_posix(), RUN.as_posix()]):
        file = Path(f"{words[0]}{suffix}")
        done = CliRunner().invoke(program, [*words, "--picture", str(file)])
        assert done.exit_code == 0, done.output
        assert file.stat().st_size > 5000


def test_a_picture_of_another_kind_is_refused(here: Path) -> None:
    done = CliRunner().invoke(program, ["evaluate", RUN.as_posix(), "--picture", "x.bmp"])
    assert (done.exit_code, "not 'x.bmp'" in done.output) == (2, True)
