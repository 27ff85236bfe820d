"""One trial of a study: a run of its own, trained or with the weights of a training that it shares, and its score."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import optuna

from sesurgery.artifacts import write_text
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec import Spec
from sesurgery.studies.answer import Outcome
from sesurgery.studies.cells import trial_spec
from sesurgery.studies.storage import LIVE, Task
from sesurgery.talk import Talk
from sesurgery.training.begun import APPLIED, TRAIN
from sesurgery.training.history import CHECKPOINT, Epoch
from sesurgery.workspace import RunManifest, read_manifest, relative, run_files
from sesurgery.workspace.folders import Workspace

METRICS = Path(TRAIN) / "metrics.csv"


@dataclass(frozen=True)
class Trials:
    """What the trials of a study have in common: its spec, as the user named it, and its own workspace."""

    spec: Spec
    workspace: Workspace
    origin: str
    talk: Talk


def run_trial(trials: Trials, task: Task) -> Outcome | int:
    """What came of a trial, or the signal that stopped it."""
    started = time.perf_counter()
    own = trial_spec(trials.spec, task.cell, task.seed)
    shared = trial_spec(trials.spec, task.cell.trained, task.seed)
    with _in_turn(trials, shared):
        folder = _trained(trials, shared, task)
    if isinstance(folder, int):
        return folder
    if task.cell.deployed:
        folder = _with_weights_of(trials, folder, own)
    details = read_manifest(folder / run_files.WEIGHTS, RunManifest).details
    top1 = _top1_of_engine(trials, folder, own, task.cell.engine) if task.cell.deployed else details.top1
    return Outcome(
        task.cell,
        task.seed,
        folder.relative_to(trials.workspace.root).as_posix(),
        top1,
        details.params_after,
        details.macs_after,
        time.perf_counter() - started,
    )


@contextlib.contextmanager
def _in_turn(trials: Trials, spec: Spec) -> Iterator[None]:
    """Hold a training: of two processes whose trials share one, the second waits, and finds it done."""
    lock = trials.workspace.root / LIVE / f"{spec.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):
        yield


def _trained(trials: Trials, spec: Spec, task: Task) -> Path | int:
    """The folder of the trained run of a spec, or the signal that stopped its training."""
    from sesurgery.pipeline.train import TrainRequest, train

    folder = trials.workspace.runs / spec.name
    if not _is_run_of(folder, spec):
        from sesurgery.pipeline.apply import apply

        folder = apply(spec, trials.workspace, _written(trials, spec).as_posix()).folder
    if read_manifest(folder / run_files.WEIGHTS, RunManifest).details.top1 is None:
        begun = (folder / TRAIN / CHECKPOINT).is_file()
        prune = trials.spec.study is not None and trials.spec.study.prune and not task.cell.plain
        watch = _pruning(task) if prune else None
        trained = train(TrainRequest(folder, resume=begun, restart=not begun, talk=trials.talk, watch=watch))
        if trained.result.signal is not None:
            return trained.result.signal
    return folder


def _written(trials: Trials, spec: Spec) -> Path:
    """The spec of a trial as a file of its own, for the manifest: the study's spec alone cannot make the run again."""
    path = trials.workspace.root / "specs" / f"{spec.name}.yaml"
    write_text(path, f"# A trial of {trials.origin}\n{spec.text()}")
    return path


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


def _with_weights_of(trials: Trials, trained: Path, spec: Spec) -> Path:
    """The run of a spec that differs from a trained run's only in how it is deployed: with its weights and epochs."""
    from sesurgery.networks import checkpoint
    from sesurgery.pipeline.specs import catalogs
    from sesurgery.reports import results
    from sesurgery.workspace.measurements import OfPlan

    folder = trials.workspace.runs / spec.name
    if _is_run_of(folder, spec):
        return folder
    run = checkpoint.read(trained, catalogs())
    plan = replace(run.plan, spec_digest=spec.digest)
    written, weights = _written(trials, spec), folder / run_files.WEIGHTS
    (folder / TRAIN).mkdir(parents=True, exist_ok=True)
    # What a run has of its training beside its weights, so that `report` and `train --restart` find it.
    for name in (METRICS, Path(APPLIED)):
        shutil.copyfile(trained / name, folder / name)
    if (cost := results.NETWORK.read(trained, results.PLAN, OfPlan(run.plan.digest))) is not None:
        results.NETWORK.write(folder, results.PLAN, replace(cost, of=OfPlan(plan.digest)))
    places = {"spec": relative(written, weights), "trained_in": relative(trained, weights)}
    details = run.manifest.details.model_copy(update=places)
    # Last: a process that ends before leaves no run.
    checkpoint.save(folder, run.network, spec, plan, f"sesurgery train {written.as_posix()}", details)
    return folder


def _top1_of_engine(trials: Trials, folder: Path, spec: Spec, number: int) -> float:
    """The share of held-out samples that one of the spec's engines, built of a run, answers right.

    A rest that makes no batch of a fixed size is left out.
    """
    from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines
    from sesurgery.pipeline.specs import backend_of
    from sesurgery.training.data import data_of
    from sesurgery.verification import batches
    from sesurgery.verification.predicting import predict_whole, top1

    wanted = EnginesRequest(folder, trials.workspace, (spec.engines[number],), talk=trials.talk)
    (built,) = build_engines(wanted)
    held_out = data_of(spec).held_out
    with backend_of(built.manifest).load(built.path) as runner:
        limits = batches.limits(built.manifest.details.engine, runner, spec.input.shape)
        logits = predict_whole(runner, held_out.images, limits)
    return top1(logits, held_out.labels.numpy()[: len(logits)])
