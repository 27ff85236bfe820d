"""The verb `study`: every trial a run of its own, taken from the storage, and one table of all of them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from sesurgery.artifacts import to_json, write_text
from sesurgery.diagnostics import SesurgeryError, described, fail, raised_at
from sesurgery.networks import run_files
from sesurgery.pipeline.begun import TRAIN
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.workspace import Workspace
from sesurgery.spec import Spec
from sesurgery.spec.study import Study
from sesurgery.studies.answer import Answer, Outcome, Timing, answer
from sesurgery.studies.cells import trial_spec
from sesurgery.studies.storage import DIED, REPEATED, SEED, Storage, Task, opened, with_parameters
from sesurgery.training.history import CHECKPOINT, Epoch
from sesurgery.workspace import RunManifest, read_manifest

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

    A trial that fails is recorded with its reason. `retry` lets those that failed wait once more. After ^C or SIGTERM,
    the next process that takes the interrupted trial resumes it.
    """
    talk = talk or Silent()
    asked = asked_of(spec)
    folder = workspace.root / STUDIES / spec.name
    storage = opened(spec.name, asked, folder)
    if retry and (count := storage.retry()):
        talk.say(f"{count} failed trials will be tried again")
    done = 0
    while True:
        with storage.take() as task:
            if task is None:
                break
            talk.say(f"trial {task.trial.number}: {task.cell}, seed {task.seed}")
            try:
                outcome = run_trial(spec, task, Workspace(folder), origin, talk)
            except optuna.TrialPruned:
                storage.study.tell(task.trial, state=TrialState.PRUNED)
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
            _keep(storage, task, outcome)
            done += 1
    return StudyResult(folder, _write(spec, storage), done)


def study_results(spec: Spec, workspace: Workspace) -> StudyResult:
    """The answer from the finished trials, without running any."""
    asked = asked_of(spec)
    folder = workspace.root / STUDIES / spec.name
    return StudyResult(folder, _write(spec, opened(spec.name, asked, folder)), 0)


def run_trial(spec: Spec, task: Task, workspace: Workspace, origin: str, talk: Talk) -> Outcome | int:
    """What came of a trial, or the signal that stopped it."""
    from sesurgery.pipeline.train import TrainRequest, train

    started = time.perf_counter()
    own = trial_spec(spec, task.cell, task.seed)
    folder = workspace.runs / own.name
    if not _is_run_of(folder, own):
        from sesurgery.pipeline.apply import apply

        # The manifest names this file: the study's spec alone cannot make this run again.
        written = workspace.root / "specs" / f"{own.name}.yaml"
        write_text(written, f"# A trial of {origin}\n{own.text()}")
        folder = apply(own, workspace, written.as_posix()).folder
    manifest = read_manifest(folder / run_files.WEIGHTS, RunManifest)
    if manifest.details.top1 is None:
        begun = (folder / TRAIN / CHECKPOINT).is_file()
        watch = _pruning(task) if asked_of(spec).prune and not task.cell.plain else None
        trained = train(TrainRequest(folder, resume=begun, restart=not begun, talk=talk, watch=watch))
        if trained.result.signal is not None:
            return trained.result.signal
        manifest = read_manifest(folder / run_files.WEIGHTS, RunManifest)
    details = manifest.details
    timed = None
    if asked_of(spec).latency and task.seed == asked_of(spec).seeds[0]:
        timed = _timed(own, folder, workspace, talk)
    return Outcome(
        task.cell,
        task.seed,
        folder.relative_to(workspace.root).as_posix(),
        details.top1,
        details.params_after,
        details.macs_after,
        time.perf_counter() - started,
        timed,
    )


def _is_run_of(folder: Path, spec: Spec) -> bool:
    """Whether an earlier process has created the run of this trial, perhaps with some training done."""
    try:
        return read_manifest(folder / run_files.WEIGHTS, RunManifest).is_of(spec)
    except (SesurgeryError, OSError):
        return False


def _pruning(task: Task) -> Callable[[Epoch], None]:
    def watch(epoch: Epoch) -> None:
        task.trial.report(epoch.held_out_top1, epoch.epoch)
        if task.trial.should_prune():
            raise optuna.TrialPruned

    return watch


def _timed(spec: Spec, run: Path, workspace: Workspace, talk: Talk) -> Timing:
    from sesurgery.pipeline.bench import bench
    from sesurgery.pipeline.bench_request import BenchRequest
    from sesurgery.pipeline.engines import EnginesRequest, build_engines

    (built,) = build_engines(EnginesRequest(run, workspace, spec.engines[:1], talk=talk))
    timing = bench(BenchRequest(built.path, workspace, talk=talk, as_exported=False)).section.report.candidate
    medians = timing.round_medians
    return Timing(timing.stats.median_seconds, float(medians.min()), float(medians.max()))


def _keep(storage: Storage, task: Task, outcome: Outcome) -> None:
    kept = asdict(replace(outcome, cell=task.cell))
    for key in ("run", "params", "macs", "seconds", "latency"):
        task.trial.set_user_attr(key, kept[key])
    storage.study.tell(task.trial, outcome.top1)


def _fail(storage: Storage, task: Task, why: str, talk: Talk) -> None:
    talk.say(f"trial {task.trial.number} failed: {why}")
    task.trial.set_user_attr("reason", why)
    storage.study.tell(task.trial, state=TrialState.FAIL)


def _write(spec: Spec, storage: Storage) -> Answer:
    from sesurgery.reports import study as report

    asked = asked_of(spec)
    axes = json.loads(asked.model_dump_json())["axes"]
    outcomes = [_outcome(storage, trial) for trial in with_parameters(storage) if _counts(trial)]
    made = answer(spec.name, axes, asked.seeds, outcomes)
    write_text(storage.folder / "study.json", to_json(report.to_json(made)))
    write_text(storage.folder / "study.md", report.to_markdown(made))
    write_text(storage.folder / "study.html", report.to_html(made))
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
    timed = kept.get("latency")
    return Outcome(
        cell,
        seed,
        kept["run"],
        trial.value,
        kept["params"],
        kept["macs"],
        kept["seconds"],
        None if timed is None else Timing(**timed),
        curve=_curve(storage.folder / str(kept["run"])),
    )


def _curve(run: Path) -> tuple[float, ...]:
    """Held-out top-1 by epoch, where the run lies on this machine."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        table = (run / TRAIN / "metrics.csv").read_text(encoding="utf-8")
        return tuple(float(row["held_out_top1"]) for row in csv.DictReader(io.StringIO(table)))
    return ()
