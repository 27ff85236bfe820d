"""An option that another choice leaves without effect is told at its place, in a spec that somebody writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery import pipeline, spec
from sesurgery.diagnostics import SpecError
from sesurgery.training.presets import PRESETS

TEXT = """version: 1
model: {{source: timm, name: resnet18}}
input: {{shape: [3, 32, 32]}}
surgery: [{{insert: se, at: residual}}]
train:
  {train}
"""


def written(folder: Path, train: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(TEXT.format(train=train), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("train", "key"),
    [
        ("schedule: {name: cosine, milestones: [3]}", "schedule.milestones"),
        ("schedule: {decay_epochs: 3}", "schedule.decay_epochs"),
        ("schedule: {name: tanh, decay_rate: 0.5}", "schedule.decay_rate"),
        ("schedule: {name: step, min_lr: 0.1}", "schedule.min_lr"),
        ("optimizer: {name: adamw, momentum: 0.9}", "optimizer.momentum"),
        ("optimizer: {name: lars, nesterov: true}", "optimizer.nesterov"),
        ("preset: fine_tune\n  optimizer: {momentum: 0.9}", "optimizer.momentum"),
    ],
)
def test_an_option_without_effect_is_told_at_its_place(train, key, tmp_path):
    with pytest.raises(SpecError, match=f"SE107.*'train.{key}' has no effect") as caught:
        pipeline.load_spec(written(tmp_path, train))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.span is not None
    assert diagnostic.span.text[diagnostic.span.column - 1 :].startswith(key.partition(".")[2])
    # What a run was trained with stays readable.
    spec.load(tmp_path / "x.yaml", pipeline.catalogs())


@pytest.mark.parametrize(
    "train",
    [
        "schedule: {name: multistep, milestones: [3], decay_rate: 0.1}",
        "schedule: {name: step, decay_epochs: 3, decay_rate: 0.1}",
        "schedule: {name: poly, decay_rate: 1.0, min_lr: 0.1}",
        "optimizer: {name: sgd, momentum: 0.9, nesterov: false}",
        "optimizer: {name: rmsproptf, momentum: 0.9}",
        "preset: se_paper\n  optimizer: {name: adamw}\n  schedule: {name: cosine}",
        *(f"preset: {name}" for name in PRESETS.names()),
    ],
)
def test_options_that_are_read_are_accepted_and_every_preset_is(train, tmp_path):
    pipeline.load_spec(written(tmp_path, train))
