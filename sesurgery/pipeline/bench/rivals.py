"""Which engines race: the one asked for, the plain network's or the one that is named, and the one as exported.

They are built where they are missing or stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.pipeline.bench.request import BenchRequest
from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines
from sesurgery.pipeline.build_engine.engine_files import as_engine
from sesurgery.pipeline.specs import backend_of, engine_of
from sesurgery.serving.loadable import require_loadable
from sesurgery.verification.fresh_process import EngineFile, engine_file
from sesurgery.workspace import (
    EngineManifest,
    OnnxManifest,
    freshness,
    manifest_path,
    read_manifest,
    require_intact,
    run_files,
    run_folder,
)

OURS, PLAIN, AS_EXPORTED = "with blocks", "without", "as exported"


@dataclass(frozen=True)
class Rivals:
    """The engines of a race: the one asked for, and the run it came from, whose weights have the digest `weights`."""

    engine: tuple[Path, EngineManifest]
    against: tuple[Path, EngineManifest]
    as_exported: tuple[Path, EngineManifest] | None
    folder: Path | None = None
    weights: str | None = None

    def files(self, threads: int) -> list[EngineFile]:
        """In the order of the table."""
        names = (OURS, PLAIN) if self.folder else _names(self.engine, self.against)
        both = zip(names, (self.engine, self.against), strict=True)
        files = [engine_file(name, *engine, threads) for name, engine in both]
        return files + ([engine_file(AS_EXPORTED, *self.as_exported, threads)] if self.as_exported else [])


def rivals_of(request: BenchRequest) -> Rivals:
    manifest = require_loadable(request.engine, foreign=request.foreign)
    folder = run_folder(request.engine, manifest)
    if folder is None:
        return _of_files(request, manifest)
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    freshness.require_current(request.engine, manifest, folder, weights)
    exported = None
    if request.as_exported and request.against is None:
        exported = _as_exported(request, folder, manifest)
    against = _named(request, manifest) or _plain(request, folder, manifest)
    other = require_loadable(against, foreign=request.foreign)
    if (own := run_folder(against, other)) is not None and own.resolve() == folder.resolve():
        freshness.require_current(against, other, folder, weights)
    return Rivals((request.engine, manifest), (against, other), exported, folder, weights)


def _of_files(request: BenchRequest, manifest: EngineManifest) -> Rivals:
    """The rivals of an engine that came from no run: only the user can name its plain network."""
    against = _named(request, manifest)
    if against is None:
        text = f"{request.engine} was built from an ONNX file that came from no run: its plain network is not known"
        raise fail("SE402", text, "name what to race against, an ONNX file or an engine: --against PLAIN.onnx")
    onnx = manifest.onnx_file(request.engine)
    exported = _as_exported(request, onnx, manifest) if request.as_exported and onnx.is_file() else None
    return Rivals((request.engine, manifest), (against, require_loadable(against, foreign=request.foreign)), exported)


def _named(request: BenchRequest, manifest: EngineManifest) -> Path | None:
    """The rival that was named, of an ONNX file an engine that is built as the one in question was."""
    if request.against is None:
        return None
    return as_engine(request.against, request.workspace, engine_of(manifest), request.talk)


def _names(*engines: tuple[Path, EngineManifest]) -> tuple[str, ...]:
    """Names of the engines in the table: of their ONNX files, or their own if they share one file."""
    files = tuple(manifest.onnx_file(path).name for path, manifest in engines)
    return files if len(set(files)) == len(files) else tuple(path.name for path, _ in engines)


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


def _as_exported(request: BenchRequest, source: Path, manifest: EngineManifest) -> tuple[Path, EngineManifest] | None:
    """The engine of the same run or file without any lowering; None where that is the engine itself."""
    if not (_was_lowered(request.engine, manifest) or manifest.details.precision in backend_of(manifest).rewrites):
        return None
    wanted = EnginesRequest(source, request.workspace, (engine_of(manifest),), as_exported=True, talk=request.talk)
    try:
        (built,) = build_engines(wanted)
    except SesurgeryError as error:
        request.talk.say(f"the engine as exported is left out: {error.diagnostics[0].message}")
        return None
    return None if built.manifest.sha256 == manifest.sha256 else (built.path, built.manifest)


def _was_lowered(engine: Path, manifest: EngineManifest) -> bool:
    """Whether a lowering pass changed the network of an engine, by its manifest or by that of its ONNX file."""
    files = [path for path in manifest.parent_files(engine) if manifest_path(path).is_file()]
    before = [made for made in map(read_manifest, files) if isinstance(made, OnnxManifest)]
    return bool(manifest.details.lowered or any(made.details.lowered for made in before))
