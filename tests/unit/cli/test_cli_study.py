"""`sesurgery study`: what each of its options shows."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from fixtures.studies import SPEC

from sesurgery.diagnostics import fail
from sesurgery.pipeline.study.timed_engine import EngineTime
from sesurgery.studies.answer import Outcome


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """A spec with a study in an empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    given = {**SPEC, "study": {**SPEC["study"], "seeds": [0, 1]}}
    Path("tiny.yaml").write_text(yaml.safe_dump(given))
    return "tiny.yaml"


@pytest.fixture
def failing(monkeypatch):
    """Trials without training; those whose cell and seed are in the list fail."""
    found = []

    def run(trials, task):
        if (str(task.cell), task.seed) in found:
            raise fail("SE503", "the data is gone")
        return Outcome(
            task.cell, task.seed, "runs/none", 0.9 + 0.001 * task.seed - 0.1 * task.cell.plain, 100, 1000, 1.0
        )

    monkeypatch.setattr(import_module("sesurgery.pipeline.study.study"), "run_trial", run)
    return found


def test_a_dry_run_lists_every_trial_and_the_time_of_all(sesurgery, spec):
    ended = sesurgery("study", spec, "--dry-run")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        f"{cell}, seed {seed}" for cell in ("plain", "reduction=2", "reduction=4") for seed in (0, 1)
    ]
    assert lines[-1].startswith("6 trials, about ")
    assert not Path("studies").exists()


@pytest.mark.parametrize("search", ["random", "bayesian"])
def test_a_dry_run_of_a_search_lists_the_cells_that_are_known_and_says_how_many_are_not(sesurgery, spec, search):
    given = yaml.safe_load(Path(spec).read_text())
    given["study"] |= {"search": search, "cells": 7, "axes": {"train.optimizer.lr": {"low": 0.01, "high": 0.1}}}
    Path(spec).write_text(yaml.safe_dump(given))
    ended = sesurgery("study", spec, "--dry-run")
    *listed, last = ended.out.splitlines()
    assert last.endswith(" on this machine, one after another, each taken to cost what the plain network costs")
    if search == "bayesian":
        assert listed.pop() == "further cells: 5, drawn by what comes of those before, so not known yet"
        assert last.startswith("7 cells and at most 7 plain networks: at most 28 trials, about ")
    else:
        assert last.startswith("28 trials, about ")
    # Each cell's plain network before it, as of a grid.
    assert len(listed) == (28 if search == "random" else 8)
    assert all(re.fullmatch(r"(plain, )?lr=0\.0\d+, seed [01]", line) for line in listed)
    assert [line.startswith("plain") for line in listed] == [True, True, False, False] * (len(listed) // 4)
    found = json.loads(sesurgery("study", spec, "--dry-run", "--json").out)
    assert (len(found["trials"]), found["cells"], found["count"]) == (len(listed), 7, 28)
    assert found["seconds"] > 0


def test_a_dry_run_tells_the_time_of_the_race_or_why_it_is_not_known(sesurgery, spec, monkeypatch):
    given = yaml.safe_load(Path(spec).read_text())
    given["study"] |= {"seeds": [0], "axes": {}, "latency": True}
    given["latency"] = {"placements": 4, "rounds": 10, "half_width": None}
    Path(spec).write_text(yaml.safe_dump(given))
    module = import_module("sesurgery.pipeline.study.estimate")
    monkeypatch.setattr(module, "engine_time", lambda *_: EngineTime(build=10, score=1, load=1, run=0.001))
    # Two engines are built in 20 s and loaded four times, with warm-ups of 0.5 s and as much again.
    assert "engines and their race: at most 30 s" in sesurgery("study", spec, "--dry-run").out.splitlines()
    assert json.loads(sesurgery("study", spec, "--dry-run", "--json").out)["race_seconds"] == pytest.approx(30.264)

    def refused(*_):
        raise fail("SE603", "no engine here")

    monkeypatch.setattr(module, "engine_time", refused)
    assert "engines and their race: not known: no engine here" in sesurgery("study", spec, "--dry-run").out.splitlines()


def test_the_table_is_shown_without_running_what_is_left(sesurgery, spec, failing):
    assert "Nothing can be said yet" in sesurgery("study", spec, "--table").out
    assert sesurgery("study", spec).code == 0
    ended = sesurgery("study", spec, "--table")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["plain", "reduction=2", "reduction=4"]
    assert lines[-1] == "study -> studies/tiny/study.html"
    assert [cell["trials"] for cell in json.loads(sesurgery("study", spec, "--table", "--json").out)["cells"]] == [
        2
    ] * 3


def test_failed_trials_are_told_and_tried_again_when_asked(sesurgery, spec, failing):
    failing.append(("reduction=2", 1))
    ended = sesurgery("study", spec)
    assert ended.code == 0
    assert "trial 3 failed: the data is gone" in ended.err
    assert "reduction=2: seed 1: the data is gone" in ended.out
    assert "trial" not in sesurgery("study", spec).err
    failing.clear()
    healed = sesurgery("study", spec, "--retry")
    assert "1 failed trial will be tried again" in healed.err
    assert "the data is gone" not in healed.out


def test_a_cluster_that_is_not_there_is_an_error_at_once(sesurgery, spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", object())
    ended = sesurgery("study", spec, "--ray", "127.0.0.1:1")
    assert ended.code == 1
    assert "error[SE801]: nobody listens at '127.0.0.1:1'" in ended.err
    assert "--workers is for --ray" in sesurgery("study", spec, "--workers", "2").err
