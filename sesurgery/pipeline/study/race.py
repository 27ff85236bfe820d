"""The latency of a study's cells: one race of all their engines at its end, kept until an engine changes.

Cells of another input size, or timed in another way, cannot run in alternating rounds: they race among themselves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
from optuna.trial import TrialState

from sesurgery.artifacts import digest_text
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.study.trials import Trials
from sesurgery.spec import Spec
from sesurgery.studies.answer import Share, Timing
from sesurgery.studies.cells import Cell, plain_of, trial_spec
from sesurgery.studies.parameters import SEED
from sesurgery.studies.storage import LIVE, Storage, with_parameters
from sesurgery.workspace import EngineManifest, read_manifest, run_files
from sesurgery.workspace.measurements import Kind

SUBJECT = "study"


@dataclass(frozen=True)
class OfCells:
    """Engines by the key of their cell: a digest of each, and of how it is timed."""

    cells: dict[str, str]


@dataclass(frozen=True)
class RacedEngine:
    """The engine of a cell, its path from the study's folder and its digest, and what the race found."""

    file: str
    sha256: str
    timing: Timing


@dataclass(frozen=True)
class StudyRace:
    """The engines of a study's cells in one race, by the key of the cell, and what is doubtful about it."""

    of: OfCells
    engines: dict[str, RacedEngine]
    doubt: str | None = None


RACE = Kind("race", StudyRace, "sesurgery study")


@dataclass(frozen=True)
class _Entry:
    """A cell's engine, and the spec of the trial that it is of."""

    cell: Cell
    spec: Spec
    engine: Path
    manifest: EngineManifest

    @property
    def conditions(self) -> str:
        """What engines of one race have in common."""
        return f"{self.spec.latency.model_dump_json()} {self.spec.input.shape}"

    @property
    def digest(self) -> str:
        return digest_text(f"{self.manifest.sha256} {self.conditions}")


def time_cells(trials: Trials, storage: Storage, *, again: bool = False) -> None:
    """Build the engine of each cell's first trained seed, and race them all, unless these have raced before.

    With `again`, a race that was doubtful is repeated.
    """
    lock = storage.folder / LIVE / "race.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Of processes that end together the others wait, and find the race done.
    with filelock.FileLock(lock):
        entries = engines_of_cells(trials, storage)
        of = OfCells({entry.cell.key: entry.digest for entry in entries})
        last = last_race(storage.folder)
        raced = last is not None and last.of == of and not (again and last.doubt)
        if not entries or raced:
            return
        made = StudyRace(of, {})
        try:
            for conditions in dict.fromkeys(entry.conditions for entry in entries):
                found = race_of([entry for entry in entries if entry.conditions == conditions], trials)
                made = replace(made, engines={**made.engines, **found.engines}, doubt=made.doubt or found.doubt)
        except SesurgeryError as error:
            # The scores stand without it.
            trials.talk.say(f"latency is not known: {error.diagnostics[0].message}")
            return
        RACE.write(storage.folder, SUBJECT, made)


def last_race(folder: Path) -> StudyRace | None:
    """The last race in a study's folder, with those of its engines that are still the ones raced; None without one."""
    try:
        stored = RACE.stored(folder, SUBJECT)
    except SesurgeryError:
        # A damaged file is written anew by the next race.
        return None
    if stored is None:
        return None
    return replace(stored, engines={key: each for key, each in stored.engines.items() if _is_there(folder, each)})


def _is_there(folder: Path, raced: RacedEngine) -> bool:
    try:
        return read_manifest(folder / raced.file, EngineManifest).sha256 == raced.sha256
    except (SesurgeryError, OSError):
        return False


def engines_of_cells(trials: Trials, storage: Storage) -> list[_Entry]:
    """The engine of each cell's first trained seed; the talk is told of those that cannot be timed."""
    from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines

    entries: dict[str, _Entry] = {}
    for trial in with_parameters(storage):
        cell = storage.cell_of(trial)
        if trial.state != TrialState.COMPLETE or cell.key in entries:
            continue
        spec, run = trial_spec(trials.spec, cell, int(trial.params[SEED])), storage.folder / trial.user_attrs["run"]
        if not (run / run_files.WEIGHTS).is_file():
            trials.talk.say(f"{cell} is not timed: its run is on another machine")
            continue
        wanted = EnginesRequest(run, trials.workspace, (spec.engines[cell.engine],), talk=trials.talk)
        try:
            (built,) = build_engines(wanted)
        except SesurgeryError as error:
            trials.talk.say(f"{cell} is not timed: {error.diagnostics[0].message}")
            continue
        entries[cell.key] = _Entry(cell, spec, built.path, built.manifest)
    return list(entries.values())


def race_of(entries: Sequence[_Entry], trials: Trials) -> StudyRace:
    """The race of engines that are timed in one way."""
    from sesurgery.networks.export import INPUT
    from sesurgery.training.data import data_of
    from sesurgery.verification.batches import timed
    from sesurgery.verification.field import race_field
    from sesurgery.verification.fresh_process import engine_file

    spec, talk = entries[0].spec, trials.talk
    threads = spec.latency.threads or len(os.sched_getaffinity(0))
    files = [engine_file(str(entry.cell), entry.engine, entry.manifest, threads) for entry in entries]
    places = {entry.cell.key: number for number, entry in enumerate(entries)}
    plain = {key: places.get(plain_of(entry.cell).key) for key, entry in zip(places, entries, strict=True)}
    pairs = {key: (places[key], other) for key, other in plain.items() if other is not None and other != places[key]}
    latency = timed(spec.latency, entries[0].manifest.details.engine)
    feeds = {INPUT: data_of(spec).held_out.images[: latency.batch].numpy()}
    talk.say(f"racing the engines of {len(files)} cells")
    field = race_field(files, list(pairs.values()), feeds, latency, talk.progress)
    if field.doubt:
        talk.say(f"warning: {field.doubt}")
    found: dict[str, RacedEngine] = {}
    for entry, time in zip(entries, field.times, strict=True):
        key = entry.cell.key
        tax = field.taxes.get(pairs[key]) if key in pairs else None
        share = None if tax is None else Share(tax.value, tax.low, tax.high)
        timing = Timing(time.value, time.low, time.high, share)
        file = Path(os.path.relpath(entry.engine, trials.workspace.root))
        found[key] = RacedEngine(file.as_posix(), entry.manifest.sha256, timing)
    return StudyRace(OfCells({entry.cell.key: entry.digest for entry in entries}), found, field.doubt)
