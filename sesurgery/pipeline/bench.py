"""The verb `bench`: an engine raced against the plain network's engine, and against its own network as exported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.backends.base import Array, Backend, TimesParts
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint, run_files
from sesurgery.pipeline import results
from sesurgery.pipeline.contestants import engine_file
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.engines import EnginesRequest, build_engines
from sesurgery.pipeline.specs import backend_of, catalogs, engine_of
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.verify import run_of
from sesurgery.pipeline.workspace import Workspace
from sesurgery.reports.model import LatencySection
from sesurgery.serving.loadable import require_loadable
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
class BenchRequest:
    """An engine to time, by default against the plain network's of the same backend and precision."""

    engine: Path
    workspace: Workspace
    against: Path | None = None
    """Another rival; then the engine as exported does not run beside them."""
    talk: Talk = field(default_factory=Silent)
    foreign: bool = False
    """Whether engines of another version or device are taken."""
    batches: tuple[int, ...] = ()
    """Left out: the batch of the run's spec."""
    processes: int | None = None
    """Left out: as many as the run's spec says."""
    as_exported: bool = True
    """Whether the engine of the same network without lowering races too."""


@dataclass(frozen=True)
class BenchResult:
    """One race for each batch asked for. `as_exported` is None where lowering did nothing."""

    engine: Path
    against: Path
    run: Path
    sections: tuple[LatencySection, ...]
    as_exported: Path | None = None

    @property
    def section(self) -> LatencySection:
        """That of the first batch."""
        return self.sections[0]


@dataclass(frozen=True)
class _Rivals:
    """The engines of a race: the one asked for is of the run in `folder`, whose weights have the digest `weights`."""

    folder: Path
    weights: str
    engine: tuple[Path, EngineManifest]
    against: tuple[Path, EngineManifest]
    as_exported: tuple[Path, EngineManifest] | None

    def files(self, threads: int) -> list[EngineFile]:
        """In the order of the table."""
        files = [engine_file(OURS, *self.engine, threads), engine_file(PLAIN, *self.against, threads)]
        return files + ([engine_file(AS_EXPORTED, *self.as_exported, threads)] if self.as_exported else [])


def bench(request: BenchRequest) -> BenchResult:
    """Time an engine in turn with its rivals, which are built where they are missing or stale.

    Raises SE603 where one of the engines cannot run here and SE401 where the run was trained again after one of them
    was built.
    """
    rivals = _rivals(request)
    sections = _races(request, rivals)
    digests = Of(rivals.engine[1].sha256, rivals.weights)
    results.LATENCY.write(rivals.folder, request.engine.name, results.Latency(digests, sections))
    as_exported = rivals.as_exported[0] if rivals.as_exported else None
    return BenchResult(request.engine, rivals.against[0], rivals.folder, sections, as_exported)


def _rivals(request: BenchRequest) -> _Rivals:
    manifest, folder = run_of(request.engine, foreign=request.foreign)
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    freshness.require_current(request.engine, manifest, folder, weights)
    exported = None
    if request.as_exported and request.against is None:
        exported = _as_exported(request, folder, manifest)
    against = request.against or _plain(request, folder, manifest)
    other = require_loadable(against, foreign=request.foreign)
    if (own := run_folder(against, other)) is not None and own.resolve() == folder.resolve():
        freshness.require_current(against, other, folder, weights)
    third = (exported, read_manifest(exported, EngineManifest)) if exported else None
    return _Rivals(folder, weights, (request.engine, manifest), (against, other), third)


def _races(request: BenchRequest, rivals: _Rivals) -> tuple[LatencySection, ...]:
    from sesurgery.networks.export import INPUT

    spec, details = checkpoint.read_spec(rivals.folder, catalogs()), rivals.engine[1].details
    threads = spec.latency.threads or len(os.sched_getaffinity(0))
    files = rivals.files(threads)
    images = data_of(spec).held_out.images
    sections = []
    for batch in request.batches or (spec.latency.batch,):
        processes = request.processes or spec.latency.processes
        plan = spec.latency.model_copy(update={"batch": batch, "processes": processes})
        feeds = {INPUT: images[:batch].numpy()}
        report = race(files, feeds, plan, request.talk.progress)
        title = f"{details.backend} {details.precision}, batch {batch}"
        mode = f"{threads} CPU threads, the run alone, no transfers"
        sections.append(LatencySection(title, mode, report, _parts(files, feeds, plan)))
    return tuple(sections)


def _parts(files: list[EngineFile], feeds: Mapping[str, Array], plan: Latency) -> tuple[str, ...]:
    """Time of each engine in parts (copies, compute, launch), for engines that do not run in the host's memory."""
    lines: list[str] = []
    (images,) = feeds.values()
    for file in files:
        with file.load() as runner:
            own = {info.name: images.astype(info.dtype) for info in runner.inputs} or feeds
            if not isinstance(runner, TimesParts):
                # If the engine itself has no parts, the others need not be loaded.
                break
            times = runner.timings(own, plan.repeats * plan.rounds)
        lines += [f"{file.name}, in parts:", str(times)]
    return tuple(lines)


def _plain(request: BenchRequest, folder: Path, engine: EngineManifest) -> Path:
    """The plain network's engine: one built of the run's weights, in the same way and by the same versions."""
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    for path, made in request.workspace.built(folder):
        alike = made.versions == engine.versions and made.details.engine == engine.details.engine
        if (
            made.details.plain
            and alike
            and digest_file(path) == made.sha256
            and freshness.descends_from(path, made, weights)
        ):
            return path
    wanted = EnginesRequest(folder, request.workspace, (engine_of(engine),), plain=True, talk=request.talk)
    (built,) = build_engines(wanted)
    return built.path


def _as_exported(request: BenchRequest, folder: Path, manifest: EngineManifest) -> Path | None:
    """The engine of the same network without any lowering; None where that is the engine itself."""
    if not (_was_lowered(request.engine, manifest) or manifest.details.precision in backend_of(manifest).rewrites):
        return None
    wanted = EnginesRequest(folder, request.workspace, (engine_of(manifest),), as_exported=True, talk=request.talk)
    try:
        (built,) = build_engines(wanted)
    except SesurgeryError as error:
        request.talk.say(f"the engine as exported is left out: {error.diagnostics[0].message}")
        return None
    return None if built.manifest.sha256 == manifest.sha256 else built.path


def _was_lowered(engine: Path, manifest: EngineManifest) -> bool:
    """Whether a lowering pass changed the network of an engine, by its manifest or by that of its ONNX file."""
    files = [path for path in manifest.parent_files(engine) if manifest_path(path).is_file()]
    before = [made for made in map(read_manifest, files) if isinstance(made, OnnxManifest)]
    return bool(manifest.details.lowered or any(made.details.lowered for made in before))


def can_run(backend: Backend) -> str | None:
    """Why engines of this backend cannot run here, or None."""
    return backend.probe().runs
