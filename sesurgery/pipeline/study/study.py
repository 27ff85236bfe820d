"""The verb `study`: every trial a run of its own, taken from the storage, and one table of all of them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from sesurgery.artifacts import locked, to_json, write_text
from sesurgery.diagnostics import SesurgeryError, described, fail, raised_at
from sesurgery.pipeline.study.race import last_race, time_cells
from sesurgery.pipeline.study.trials import METRICS, Trials, run_trial
from sesurgery.spec import Spec
from sesurgery.spec.study import Study
from sesurgery.studies.answer import Answer, Outcome, answer
from sesurgery.studies.opening import opened
from sesurgery.studies.parameters import SEED
from sesurgery.studies.storage import DIED, KEPT, REPEATED, Storage, Task, with_parameters
from sesurgery.talk import Silent, Talk
from sesurgery.workspace import Provenance, StudyDetails, StudyManifest, describe
from sesurgery.workspace.folders import Workspace

STUDIES = "studies"


@dataclass(frozen=True)
class StudyResult:
    """The state of a study after this process's share of trials; `signal` is the one that stopped it."""

    folder: Path
    answer: Answer
    done: int
    signal: int | None = None


def asked_of(spec: Spec) -> Study:
    """The spec's study; raises SE102 if it has none."""
    if spec.study is None:
        raise fail("SE102", "missing key 'study'", 'add `study: {axes: {"surgery[0].insert.reduction": [8, 16]}}`')
    return spec.study


def study(
    spec: Spec, workspace: Workspace, origin: str, talk: Talk | None = None, *, retry: bool = False
) -> StudyResult:
    """Run the trials that nobody has taken, until none is left, and write the answer into studies/NAME/.

    A trial that fails is recorded with its reason. `retry` lets those that failed wait once more,
    and repeats a doubtful race. After ^C or SIGTERM, the next process that takes the interrupted trial resumes it.
    """
    talk = talk or Silent()
    asked = asked_of(spec)
    folder = workspace.root / STUDIES / spec.name
    storage = opened(spec.name, asked, folder)
    trials = Trials(spec, Workspace(folder), origin, talk)
    if retry:
        _retry(storage, talk)
    done = 0
    while True:
        with storage.take() as task:
            if task is None:
                break
            talk.say(f"trial {task.trial.number}: {task.cell}, seed {task.seed}")
            try:
                outcome = run_trial(trials, task)
            except optuna.TrialPruned:
                _is_told(storage.prune(task), task, talk)
                continue
            except SesurgeryError as error:
                _fail(storage, task, error.diagnostics[0].message, talk)
                continue
            except Exception as error:
                # A trial may run anybody's network: whatever that raises is of this trial alone.
                _fail(storage, task, f"{described(error)} ({raised_at(error)})", talk)
                continue
            except BaseException:
                storage.again(task)
                raise
            if isinstance(outcome, int):
                storage.again(task)
                return StudyResult(folder, _write(spec, storage), done, outcome)
            done += _is_told(storage.keep(task, outcome), task, talk)
    # Whoever runs a trial still will find none left in turn.
    if asked.latency and not storage.runs_here():
        time_cells(trials, storage, again=retry)
    return StudyResult(folder, _write(spec, storage), done)


def retry_failed(spec: Spec, workspace: Workspace, talk: Talk) -> None:
    """Let the trials that failed wait once more, without running any."""
    _retry(opened(spec.name, asked_of(spec), workspace.root / STUDIES / spec.name), talk)


def repeat_doubtful_race(spec: Spec, workspace: Workspace, origin: str, talk: Talk) -> None:
    """Race the engines of a study's cells again if it asks for latency and the last race was doubtful."""
    asked, folder = asked_of(spec), workspace.root / STUDIES / spec.name
    if asked.latency:
        time_cells(Trials(spec, Workspace(folder), origin, talk), opened(spec.name, asked, folder), again=True)


def study_results(spec: Spec, workspace: Workspace) -> StudyResult:
    """The answer from the finished trials, without running any."""
    asked = asked_of(spec)
    folder = workspace.root / STUDIES / spec.name
    return StudyResult(folder, _write(spec, opened(spec.name, asked, folder)), 0)


def _retry(storage: Storage, talk: Talk) -> None:
    if count := storage.retry():
        talk.say(f"{count} failed trial{'s' * (count > 1)} will be tried again")


def _fail(storage: Storage, task: Task, why: str, talk: Talk) -> None:
    talk.say(f"trial {task.trial.number} failed: {why}")
    _is_told(storage.fail(task, why), task, talk)


def _is_told(own: bool, task: Task, talk: Talk) -> bool:
    if not own:
        talk.say(f"trial {task.trial.number} was taken for dead meanwhile, and counts as another machine runs it")
    return own


def _write(spec: Spec, storage: Storage) -> Answer:
    from sesurgery.reports.pages import study as report

    asked = asked_of(spec)
    axes = json.loads(asked.model_dump_json())["axes"]
    outcomes = [_outcome(storage, trial) for trial in with_parameters(storage) if _counts(trial)]
    race = last_race(storage.folder) if asked.latency else None
    timings = {key: each.timing for key, each in race.engines.items()} if race else {}
    made = replace(answer(spec.name, axes, asked.seeds, outcomes, timings), doubt=race.doubt if race else None)
    told, text, page = (storage.folder / f"study.{suffix}" for suffix in ("json", "md", "html"))
    source = spec.span()
    file = None if source is None else Path(source.file)
    # Of processes that end together each writes files that belong together.
    with locked(storage.folder):
        write_text(told, to_json(report.to_json(made)))
        write_text(text, report.to_markdown(made))
        write_text(page, report.to_html(made))
        describe(
            told,
            Provenance(
                StudyManifest,
                spec.name,
                f"sesurgery study {'SPEC' if file is None else file.as_posix()}",
                parents=() if file is None or not file.is_file() else (file,),
                beside=(text, page),
                spec_digest=spec.digest,
                details=StudyDetails(
                    axes=tuple(axes),
                    seeds=tuple(asked.seeds),
                    cells=len(made.rows),
                    trials=sum(row.trials for row in made.rows),
                    failed=sum(len(row.failures) for row in made.rows),
                ),
            ),
        )
    return made


def _counts(trial: FrozenTrial) -> bool:
    if trial.user_attrs.get("reason") == REPEATED:
        return False
    return trial.state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)


def _outcome(storage: Storage, trial: FrozenTrial) -> Outcome:
    cell, seed, kept = storage.cell_of(trial), int(trial.params[SEED]), trial.user_attrs
    if trial.state != TrialState.COMPLETE:
        why = "ended early" if trial.state == TrialState.PRUNED else str(kept.get("reason", DIED))
        return Outcome(cell, seed, failed=why)
    facts = {key: kept[key] for key in KEPT}
    return Outcome(cell, seed, top1=trial.value, curve=_curve(storage.folder / str(kept["run"])), **facts)


def _curve(run: Path) -> tuple[float, ...]:
    """Held-out top-1 by epoch, where the run lies on this machine."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        table = (run / METRICS).read_text(encoding="utf-8")
        return tuple(float(row["held_out_top1"]) for row in csv.DictReader(io.StringIO(table)))
    return ()
