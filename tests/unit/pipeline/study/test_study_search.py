"""A random and a Bayesian search with pruning, in which every trial is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.studies import SPEC

from sesurgery import pipeline
from sesurgery.pipeline import Workspace
from sesurgery.studies.draws import START_UP, foreseen
from sesurgery.studies.opening import opened
from sesurgery.studies.storage import REPEATED, with_parameters

LR = "train.optimizer.lr"
ABSURD, GOOD = 1e-9, 0.05
"""By the one a network learns nothing."""
EPOCHS, SEEDS, CELLS = 3, (0, 1), 3
GIVEN = {
    **SPEC,
    "surgery": [{"insert": "eca", "at": "residual"}],
    "train": {**SPEC["train"], "epochs": EPOCHS, "data": {"dataset": "digits", "held_out": 0.5}},
    "study": {
        "axes": {LR: [ABSURD, GOOD], "surgery[0].insert.gamma": {"low": 1.0, "high": 3.0}},
        "cells": CELLS,
        "seeds": [*SEEDS],
        "prune": True,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("search", ["random", "bayesian"])
def test_a_search_trains_every_trial_and_prunes_the_one_that_learns_nothing(tmp_path: Path, search: str) -> None:
    spec = pipeline.load_spec({**GIVEN, "study": {**GIVEN["study"], "search": search}})
    assert spec.study is not None
    # The second cell has its first seed as the fifth trial, and is judged from its second on: against two good ones.
    assert [cell.where[LR] for cell in foreseen(spec.study)[:2]] == [GOOD, ABSURD]
    done = pipeline.study(spec, Workspace(tmp_path), "tiny.yaml")

    storage = opened(spec.name, spec.study, done.folder)
    trials = [trial for trial in with_parameters(storage) if trial.user_attrs.get("reason") != REPEATED]
    states = {(storage.cell_of(trial).key, trial.params["seed"]): trial.state.name for trial in trials}
    assert len(states) == len(trials) == len(done.answer.rows) * len(SEEDS)
    assert set(states.values()) == {"COMPLETE", "PRUNED"}
    assert states[foreseen(spec.study)[1].key, 1] == "PRUNED"
    assert all(state == "COMPLETE" for (key, _), state in states.items() if json.loads(key)[0]), "plain ones are kept"

    rows = [row for row in done.answer.rows if not row.cell.plain]
    assert len(rows) == CELLS
    for row in done.answer.rows:
        pruned = [seed for seed in SEEDS if states[row.cell.key, seed] == "PRUNED"]
        assert row.failures == tuple(f"seed {seed}: ended early" for seed in pruned)
        assert (row.top1 is None) == (len(pruned) == len(SEEDS))
    epochs = [len(path.read_text().splitlines()) - 1 for path in (done.folder / "runs").glob("*/train/metrics.csv")]
    assert len(epochs) == len(trials)
    assert epochs.count(EPOCHS) >= list(states.values()).count("COMPLETE")
    assert min(epochs) == 2
    table = (done.folder / "study.md").read_text()
    assert all(f"| {row.cell}" in table for row in done.answer.rows)
    cells = json.loads((done.folder / "study.json").read_text())["cells"]
    assert [len(cell["curve"]) for cell in cells] == [EPOCHS if row.top1 else 0 for row in done.answer.rows]

    # The last cell was drawn when a Bayesian search looks at what came before.
    first = {storage.cell_of(trial).key: trial.number for trial in reversed(trials)}
    before = sorted(sum(trial.number < first[row.cell.key] for trial in trials) for row in rows)
    assert [count >= START_UP for count in before] == [False, False, True]
