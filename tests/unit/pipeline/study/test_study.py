"""The verb `study`: who runs which trial, what is left when a process ends, and what the table says."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time
from importlib import import_module
from pathlib import Path

import optuna
import pytest
from fixtures.studies import score, spec_with

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.pipeline import Workspace
from sesurgery.reports.pages.study import from_json, to_json, to_markdown, to_text
from sesurgery.studies.answer import Outcome, answer
from sesurgery.studies.cells import Cell
from sesurgery.studies.opening import opened
from sesurgery.workspace import StudyManifest, require_intact

RESULTS = Path(__file__).parents[4] / "benchmarks" / "results" / "studies"
PROVENANCE = {"command", "commit", "raced_at", "killed", "device"}
"""What the committed results have beside the study's own JSON."""


def interrupting(monkeypatch, at, raised):
    module = import_module("sesurgery.pipeline.study.study")
    inner, count = module.run_trial, [0]

    def run(*arguments):
        count[0] += 1
        if count[0] == at:
            raise raised
        return inner(*arguments)

    monkeypatch.setattr(module, "run_trial", run)


def test_every_cell_is_run_with_every_seed_and_not_again(tmp_path, ran):
    spec = spec_with()
    first = pipeline.study(spec, Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == len(set(ran)) == 9
    again = pipeline.study(spec, Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == 9
    assert again.answer == first.answer


def test_more_seeds_go_on_with_the_same_study(tmp_path, ran):
    pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    pipeline.study(spec_with(seeds=[0, 1, 2, 3]), Workspace(tmp_path), "tiny.yaml")
    assert {seed for _, seed in ran[9:]} == {3}
    assert len(ran) == 12


def test_other_axes_are_another_study(tmp_path, ran):
    pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    with pytest.raises(SesurgeryError, match="over other axes"):
        pipeline.study(spec_with(axes={"train.epochs": [1]}), Workspace(tmp_path), "tiny.yaml")


def test_an_interrupted_trial_is_run_by_the_next_process(tmp_path, ran, monkeypatch):
    interrupting(monkeypatch, 4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == 3
    done = pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == len(set(ran)) == 9
    assert [(row.trials, row.failures) for row in done.answer.rows] == [(3, ())] * 3


def test_a_failed_trial_is_recorded_with_its_reason_and_can_be_tried_again(tmp_path, ran, monkeypatch):
    interrupting(monkeypatch, 2, fail("SE501", "the data is gone"))
    done = pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    assert [row.failures for row in done.answer.rows] == [("seed 1: the data is gone",), (), ()]
    assert "3 (1 failed)" in to_text(done.answer)
    pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == 8
    healed = pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml", retry=True)
    assert len(ran) == 9
    assert [row.failures for row in healed.answer.rows] == [()] * 3


@pytest.mark.parametrize("raised", [TypeError("no size"), AttributeError("no size"), KeyError("size")], ids=repr)
def test_whatever_a_network_raises_is_of_its_trial_alone(tmp_path, ran, monkeypatch, raised):
    interrupting(monkeypatch, 2, raised)
    done = pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == 8
    ((why,), *others) = [row.failures for row in done.answer.rows]
    assert re.fullmatch(rf"seed 1: {type(raised).__name__}: .*size'? \(test_study.py:\d+\)", why)
    assert others == [(), ()]
    assert pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml").done == 0


def test_an_exit_within_a_trial_ends_the_study_and_lets_the_trial_wait(tmp_path, ran, monkeypatch):
    interrupting(monkeypatch, 2, SystemExit(1))
    with pytest.raises(SystemExit):
        pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    assert len(ran) == len(set(ran)) == 9


def test_optuna_itself_reads_the_trials_with_their_parameters_and_scores(tmp_path, ran):
    storage = f"sqlite:///{tmp_path}/study.db"
    pipeline.study(spec_with(storage=storage), Workspace(tmp_path), "tiny.yaml")
    # As optuna-dashboard does.
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    found = {
        (each.params["network"], each.params.get("surgery[0].insert.reduction"), each.params["seed"]) for each in trials
    }
    assert found == {
        (network, ratio, seed)
        for network, ratio in (("plain", None), ("blocks", 2), ("blocks", 4))
        for seed in range(3)
    }
    cells = {None: Cell({}, plain=True), **{ratio: Cell({"surgery[0].insert.reduction": ratio}) for ratio in (2, 4)}}
    for each in trials:
        assert each.value == score(cells[each.params.get("surgery[0].insert.reduction")], each.params["seed"])
        assert each.user_attrs["params"] == 100


@pytest.mark.parametrize("search", ["random", "bayesian"])
def test_a_trial_that_falls_behind_the_median_is_pruned_and_recorded(tmp_path, ran, monkeypatch, search):
    module = import_module("sesurgery.pipeline.study.study")
    made, real, good = module.run_trial, import_module("sesurgery.pipeline.study.trials").run_trial, []

    def run(trials, task):
        """Five good trainings that nobody ran, and then a real one of so few steps that it cannot keep up."""
        if task.cell.plain or len(good) < 5:
            if not task.cell.plain:
                good.append(task)
                for epoch in range(1, 4):
                    task.trial.report(0.999, epoch)
            return made(trials, task)
        return real(trials, task)

    monkeypatch.setattr(module, "run_trial", run)
    spec = spec_with(
        axes={"train.optimizer.lr": {"low": 0.01, "high": 0.06}},
        search=search,
        cells=6,
        seeds=[0],
        prune=True,
    ).with_({"train.data": {"dataset": "digits", "held_out": 0.9}, "train.epochs": 3})
    done = pipeline.study(spec, Workspace(tmp_path), "tiny.yaml")
    (pruned,) = [row for row in done.answer.rows if row.failures]
    assert pruned.failures == ("seed 0: ended early",)
    (table,) = (done.folder / "runs").glob("*/train/metrics.csv")
    assert [line.partition(",")[0] for line in table.read_text().splitlines()[1:]] == ["1", "2"]
    storage = opened(spec.name, spec.study, done.folder)
    assert [trial.state.name for trial in storage.trials()].count("PRUNED") == 1


def test_a_line_of_the_journal_that_was_cut_off_costs_nothing_else(tmp_path, ran):
    workspace = Workspace(tmp_path)
    done = pipeline.study(spec_with(), workspace, "tiny.yaml").done
    journal = tmp_path / "studies" / spec_with().name / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    # As kill -9 or a full disk leave it: the last line, a trial's end, is there by half.
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    again = pipeline.study(spec_with(), workspace, "tiny.yaml")
    assert (done > 1, again.done) == (True, 1)
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert pipeline.study_results(spec_with(), workspace).answer.rows == again.answer.rows


def test_the_journals_lock_ends_with_the_process_that_held_it(tmp_path):
    from sesurgery.studies.journal import Journal

    def die():
        held = Journal(tmp_path / "journal.log")
        held.lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    started = time.monotonic()
    Journal(tmp_path / "journal.log").append_logs([{"a": 1}])
    # Optuna's own waits 30 seconds.
    assert time.monotonic() - started < 15
    assert (tmp_path / "journal.log").read_text() == '{"a":1}\n'


@pytest.mark.parametrize("search", ["random", "bayesian"])
def test_a_search_gives_every_cell_all_seeds_and_a_plain_network(tmp_path, ran, search):
    axes = {"surgery[0].insert.reduction": [2, 4], "train.optimizer.lr": {"low": 0.01, "high": 0.1, "log": True}}
    done = pipeline.study(spec_with(axes=axes, search=search, cells=3, seeds=[0, 1]), Workspace(tmp_path), "tiny.yaml")
    rows = done.answer.rows
    assert len(ran) == len(set(ran))
    assert sum(not row.cell.plain for row in rows) == 3
    assert all(row.trials == 2 for row in rows)
    assert all(row.against_plain is not None for row in rows if not row.cell.plain)


def test_a_search_ends_where_the_axes_hold_no_further_cell(tmp_path, ran):
    done = pipeline.study(spec_with(search="random", cells=9), Workspace(tmp_path), "tiny.yaml")
    assert len(done.answer.rows) == 3


def test_the_answer_is_written_as_text_markdown_json_and_a_page(tmp_path, ran):
    done = pipeline.study(spec_with(), Workspace(tmp_path), "tiny.yaml")
    found = json.loads((done.folder / "study.json").read_text())
    assert found["axes"] == {"surgery[0].insert.reduction": [2, 4]}
    for cell in found["cells"]:
        assert {"where", "trials", "failed", "top1", "against_plain", "params", "macs", "latency"} <= cell.keys()
    ours = found["cells"][1]["against_plain"]
    assert ours["significant"]
    assert ours["low"] < ours["difference"] < ours["high"]
    assert found["advice"].startswith("Take reduction=")
    page = (done.folder / "study.html").read_text()
    assert found["advice"].split(":")[0] in page
    assert page.count("<svg") == 2
    assert "| reduction=2" in (done.folder / "study.md").read_text()
    manifest = require_intact(done.folder / "study.json", StudyManifest)
    assert manifest.details.axes == ("surgery[0].insert.reduction",)
    assert (manifest.details.cells, manifest.details.failed) == (len(found["cells"]), 0)
    assert manifest.details.trials == sum(cell["trials"] for cell in found["cells"])
    (done.folder / "study.md").write_text("something else")
    with pytest.raises(SesurgeryError, match="SE401"):
        require_intact(done.folder / "study.json", StudyManifest)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_what_a_study_wrote_is_read_again(path):
    found = json.loads(path.read_text())
    written = {key: value for key, value in found.items() if key not in PROVENANCE}
    assert to_json(from_json(found)) == written
    assert [cell["tax"] is None for cell in found["cells"]] == [cell["plain"] for cell in found["cells"]]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_docs_have_the_table_and_the_pictures_of_a_committed_study(path):
    made = from_json(json.loads(path.read_text()))
    rows = [line for line in to_markdown(made).splitlines() if line.startswith("|")]
    docs = RESULTS.parents[2] / "docs"
    assert len(rows) == len(made.rows) + 2
    assert "\n".join(rows) in (docs / "studies.md").read_text()
    cells, front = ((docs / "pictures" / f"study_{path.stem}{kind}.svg").read_text() for kind in ("", "_latency"))
    assert all(f">{row.cell}<" in cells for row in made.rows)
    assert all(f">{made.rows[index].cell}<" in front for index in made.pareto)
    if any(row.curve for row in made.rows):
        curves = (docs / "pictures" / f"study_{path.stem}_curves.svg").read_text()
        assert all(f">{row.cell}<" in curves for row in made.rows)
        assert f"pictures/study_{path.stem}_curves.svg" in (docs / "studies.md").read_text()
        # A training's score is that of its last epoch.
        assert all(row.curve[-1] == pytest.approx(row.top1.mean) for row in made.rows)


def outcomes(gain, cost):
    plain = Cell({}, plain=True)
    cells = [(plain, 0.0, 100), *((Cell({"surgery[0].at": at}), gain[at], cost[at]) for at in gain)]
    noise = ((0.001, -0.001, 0.0), (0.0, 0.001, -0.001), (-0.001, 0.0, 0.001))
    return [
        Outcome(cell, seed, "r", 0.8 + more + noise[place % 3][seed], 1, macs)
        for place, (cell, more, macs) in enumerate(cells)
        for seed in range(3)
    ]


def test_of_cells_that_are_as_good_the_cheapest_is_taken():
    made = answer("x", {}, (0, 1, 2), outcomes({"pre": 0.05, "post": 0.0502}, {"pre": 110, "post": 130}))
    assert made.taken == 1
    assert "not told apart from the best, at=post" in made.advice


def test_the_order_in_which_seeds_were_trained_changes_no_digit():
    made = outcomes({"pre": 0.05, "post": 0.0502}, {"pre": 110, "post": 130})
    other = [made[3 * cell + seed] for cell in range(3) for seed in (2, 0, 1)]
    assert answer("x", {}, (0, 1, 2), other).rows == answer("x", {}, (0, 1, 2), made).rows


def test_without_a_gain_the_plain_network_is_taken():
    made = answer("x", {}, (0, 1, 2), outcomes({"pre": 0.0001, "post": -0.05}, {"pre": 110, "post": 130}))
    assert made.rows[made.taken].cell.plain
    assert made.advice.startswith("Take the plain network: no cell was told apart from it for the better")
    assert made.pareto[0] == 0


@pytest.mark.slow
def test_trials_are_runs_with_manifests(studied):
    done = pipeline.study_results(pipeline.load_spec(studied / "tiny.yaml"), Workspace(studied))
    runs = sorted((done.folder / "runs").glob("*/weights.safetensors.manifest.json"))
    assert len(runs) == 4
    assert all(json.loads(path.read_text())["details"]["top1"] is not None for path in runs)
    assert [row.params for row in done.answer.rows] == sorted(row.params for row in done.answer.rows)


def test_one_seed_tells_nothing(tmp_path, ran):
    assert (
        "One seed tells nothing" in pipeline.study(spec_with(seeds=[0]), Workspace(tmp_path), "tiny.yaml").answer.advice
    )
