"""The network whose answers a run learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.tiny import RUN
from safetensors.torch import load_file, save_file

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.training.begun import APPLIED
from sesurgery.training.teacher import teacher_of


def taught_by(teacher: str) -> Run:
    run = checkpoint.read(RUN, pipeline.catalogs())
    return replace(run, spec=run.spec.with_({"train.distill": {"teacher": teacher}}))


def test_a_recipe_without_distillation_has_no_teacher(here: Path) -> None:
    assert teacher_of(checkpoint.read(RUN, pipeline.catalogs()), pipeline.catalogs()) is None


def test_the_untouched_network_has_the_weights_that_were_applied_and_no_block(here: Path) -> None:
    run, applied = taught_by("plain"), load_file(RUN / APPLIED)
    teacher = teacher_of(run, pipeline.catalogs())
    assert teacher is not None
    assert set(teacher.state_dict()) < set(run.network.state_dict())
    assert all(torch.equal(value, applied[key]) for key, value in teacher.state_dict().items())


def test_another_run_teaches_with_the_weights_that_it_was_trained_to(here: Path) -> None:
    run = taught_by(RUN.as_posix())
    teacher = teacher_of(run, pipeline.catalogs())
    assert teacher is not None
    assert all(torch.equal(value, run.network.state_dict()[key]) for key, value in teacher.state_dict().items())


def test_a_surgery_that_took_parts_out_left_no_untouched_network(here: Path) -> None:
    run, applied = taught_by("plain"), load_file(RUN / APPLIED)
    del applied[next(key for key in applied if ".se." not in key)]
    (RUN / APPLIED).unlink()
    save_file(applied, RUN / APPLIED)
    with pytest.raises(SesurgeryError, match=r"SE502.*untouched network cannot be the teacher"):
        teacher_of(run, pipeline.catalogs())
