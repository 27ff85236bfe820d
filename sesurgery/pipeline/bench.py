"""The verb `bench`: an engine raced against the plain network's engine, and against its own network as exported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.backends.base import Array, Backend, TimesParts
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint, run_files
from sesurgery.pipeline import results
from sesurgery.pipeline.contestants import engine_file
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.engines import build_engines
from sesurgery.pipeline.specs import backend_of, catalogs, engine_of
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.verify import run_of
from sesurgery.pipeline.workspace import Workspace
from sesurgery.reports.model import LatencySection
from sesurgery.serving.home import require_at_home
from sesurgery.spec.latency import Latency
from sesurgery.verification.fresh_process import EngineFile, race
from sesurgery.workspace import (
    EngineManifest,
    OnnxManifest,
    freshness,
    manifest_path,
    read_manifest,
    require_intact,
    run_folder,
)
from sesurgery.workspace.measurements import Of

OURS, PLAIN, AS_EXPORTED = "with blocks", "without", "as exported"


@dataclass(frozen=True)
class BenchResult:
    """A race an asked batch. `as_exported` is None where there is nothing that lowering did."""

    engine: Path
    against: Path
    run: Path
    sections: tuple[LatencySection, ...]
    as_exported: Path | None = None

    @property
    def section(self) -> LatencySection:
        """That of the first batch."""
        return self.sections[0]


def bench(
    engine: Path,
    workspace: Workspace,
    against: Path | None = None,
    talk: Talk | None = None,
    *,
    foreign: bool = False,
    batches: tuple[int, ...] = (),
    processes: int | None = None,
    as_exported: bool = True,
) -> BenchResult:
    """Time an engine against another one, by default the plain network's of the same backend and precision.

    Beside it runs the engine of the same network as exported, unless another rival was named. Both are built where they
    are missing or stale. `batches` and `processes` stand for those of the run's spec. Raises SE603 where one of the
    engines cannot run here and SE401 where the run was trained again after one of them was built.
    """
    from sesurgery.networks.export import INPUT

    talk = talk or Silent()
    manifest, folder = run_of(engine, foreign=foreign)
    spec = checkpoint.read_spec(folder, catalogs())
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    freshness.require_current(engine, manifest, folder, weights)
    before = _as_exported(engine, folder, workspace, manifest, talk) if as_exported and against is None else None
    against = against or _plain(folder, workspace, manifest, talk)
    other = require_at_home(against, foreign=foreign)
    if (own := run_folder(against, other)) is not None and own.resolve() == folder.resolve():
        freshness.require_current(against, other, folder, weights)
    threads = spec.latency.threads or len(os.sched_getaffinity(0))
    files = [
        engine_file(OURS, engine, manifest, threads),
        engine_file(PLAIN, against, other, threads),
    ]
    if before is not None:
        files.append(engine_file(AS_EXPORTED, before, read_manifest(before, EngineManifest), threads))
    images = data_of(spec).held_out.images
    sections = []
    for batch in batches or (spec.latency.batch,):
        plan = spec.latency.model_copy(update={"batch": batch, "processes": processes or spec.latency.processes})
        feeds = {INPUT: images[:batch].numpy()}
        report = race(files, feeds, plan, talk.progress)
        title = f"{manifest.details.backend} {manifest.details.precision}, batch {batch}"
        mode = f"{threads} CPU threads, the run alone, no transfers"
        sections.append(LatencySection(title, mode, report, _parts(files, feeds, plan)))
    results.LATENCY.write(folder, engine.name, results.Latency(Of(manifest.sha256, weights), tuple(sections)))
    return BenchResult(engine, against, folder, tuple(sections), before)


def _parts(files: list[EngineFile], feeds: Mapping[str, Array], plan: Latency) -> tuple[str, ...]:
    """What copies, compute and start took of each engine, where an engine does not run in the host's memory."""
    lines: list[str] = []
    (images,) = feeds.values()
    for file in files:
        with file.load() as runner:
            own = {info.name: images.astype(info.dtype) for info in runner.inputs} or feeds
            if not isinstance(runner, TimesParts):
                # What does not hold for the engine in question is not worth loading the others for.
                break
            times = runner.timings(own, plan.repeats * plan.rounds)
        lines += [f"{file.name}, in parts:", str(times)]
    return tuple(lines)


def _plain(folder: Path, workspace: Workspace, engine: EngineManifest, talk: Talk) -> Path:
    """The plain network's engine: one built of the run's weights, in the same way and by the same versions."""
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    for path, made in workspace.built(folder):
        alike = made.versions == engine.versions and made.details.engine == engine.details.engine
        if (
            made.details.plain
            and alike
            and digest_file(path) == made.sha256
            and freshness.descends_from(path, made, weights)
        ):
            return path

    (built,) = build_engines(folder, workspace, (engine_of(engine),), plain=True, talk=talk)
    return built.path


def _as_exported(engine: Path, folder: Path, workspace: Workspace, manifest: EngineManifest, talk: Talk) -> Path | None:
    """The engine of the same network without any lowering; None where that is the engine itself."""
    if not (_was_lowered(engine, manifest) or manifest.details.precision in backend_of(manifest).rewrites):
        return None
    try:
        (built,) = build_engines(folder, workspace, (engine_of(manifest),), as_exported=True, talk=talk)
    except SesurgeryError as error:
        talk.say(f"the engine as exported is left out: {error.diagnostics[0].message}")
        return None
    return None if built.manifest.sha256 == manifest.sha256 else built.path


def _was_lowered(engine: Path, manifest: EngineManifest) -> bool:
    """Whether a pass changed the network that an engine was built of, as it or the file before it tells."""
    files = [path for path in manifest.parent_files(engine) if manifest_path(path).is_file()]
    before = [made for made in map(read_manifest, files) if isinstance(made, OnnxManifest)]
    return bool(manifest.details.lowered or any(made.details.lowered for made in before))


def can_run(backend: Backend) -> str | None:
    """Why engines of this backend cannot run here, or None."""
    return backend.probe().runs
