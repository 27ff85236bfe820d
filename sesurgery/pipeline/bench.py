"""The verb `bench`: an engine raced against the plain network's engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesurgery.artifacts import Manifest, digest_file, require_intact, write_text
from sesurgery.backends.base import Backend
from sesurgery.networks import checkpoint
from sesurgery.networks.export import INPUT
from sesurgery.pipeline import freshness, results
from sesurgery.pipeline.engines import build_engines
from sesurgery.pipeline.specs import backend_of, catalogs, engine_of
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.train import data_of
from sesurgery.pipeline.verify import run_of
from sesurgery.pipeline.workspace import Workspace
from sesurgery.reports.model import LatencySection
from sesurgery.serving.home import require_at_home
from sesurgery.verification.latency import race


@dataclass(frozen=True)
class Benched:
    """A race between two engines."""

    engine: Path
    against: Path
    run: Path
    section: LatencySection


def bench(
    engine: Path,
    workspace: Workspace,
    against: Path | None = None,
    talk: Talk | None = None,
    *,
    foreign: bool = False,
) -> Benched:
    """Time an engine against another one, by default the plain network's of the same backend and precision.

    The plain network's engine is built where it is missing or stale. Raises SE603 where one of them cannot run here and
    SE401 where the run was trained again after one of them was built.
    """
    talk = talk or Silent()
    manifest, folder = run_of(engine, foreign=foreign)
    spec = checkpoint.read_spec(folder, catalogs())
    weights = require_intact(folder / checkpoint.WEIGHTS).sha256
    freshness.require_current(engine, manifest, folder, weights)
    backend = backend_of(manifest)
    against = against or _plain(folder, workspace, manifest, talk)
    other = require_at_home(against, foreign=foreign)
    if other.details.get("run") == folder.as_posix():
        freshness.require_current(against, other, folder, weights)
    rival = backend_of(other)
    plan = spec.latency
    images = data_of(spec).held_out.images[: plan.batch].numpy()
    threads = plan.threads or len(os.sched_getaffinity(0))
    with backend.load(engine, threads) as candidate, rival.load(against, threads) as baseline:
        feeds = (
            {candidate.inputs[0].name: images.astype(candidate.inputs[0].dtype)}
            if candidate.inputs
            else {INPUT: images}
        )
        report = race(candidate, baseline, feeds, plan, lambda what, done, total: talk.progress(what, done, total))
        named = zip(report.engines, (candidate, baseline), strict=True)
        parts = {timing.name: runner.timings(feeds, plan.repeats * plan.rounds) for timing, runner in named}
    title = f"{manifest.details['backend']} {manifest.details['precision']}, batch {plan.batch}"
    lines = [line for name, part in parts.items() if part is not None for line in (f"{name}, in parts:", str(part))]
    section = LatencySection(title, f"{threads} CPU threads, the run alone, no transfers", report, tuple(lines))
    measured = results.Latency(results.Of(manifest.sha256, weights), section)
    write_text(results.latency_file(folder, engine), results.dump(results.LATENCY, measured))
    return Benched(engine, against, folder, section)


def _plain(folder: Path, workspace: Workspace, engine: Manifest, talk: Talk) -> Path:
    """The plain network's engine: one built of the run's weights, in the same way and by the same versions."""
    weights = require_intact(folder / checkpoint.WEIGHTS).sha256
    details: Any = engine.details
    same = ("engine",)
    for path, made in workspace.built(folder):
        alike = made.versions == engine.versions and all(made.details[key] == details[key] for key in same)
        if (
            made.details.get("plain")
            and alike
            and digest_file(path) == made.sha256
            and freshness.descends_from(made, weights)
        ):
            return path
    (built,) = build_engines(folder, workspace, (engine_of(engine),), plain=True, talk=talk)
    return built.path


def can_run(backend: Backend) -> str | None:
    """Why engines of this backend cannot run here, or None."""
    return backend.probe().runs
