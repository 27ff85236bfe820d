"""The verb `build-engine`: lower an ONNX file to a precision and build it with a backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import Manifest, describe, locked, manifest_path, require_intact
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Backend, BatchRange, BuildOptions, BuildReport
from sesurgery.lowering import load as passes
from sesurgery.lowering.base import Lowered
from sesurgery.lowering.base import run as lower
from sesurgery.lowering.precision import Precision as PrecisionPass
from sesurgery.models import checkpoint, onnx_io
from sesurgery.pipeline.export import export
from sesurgery.pipeline.specs import catalogs
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.workspace import Workspace
from sesurgery.spec.model import Engine


@dataclass(frozen=True)
class Built:
    """An engine that was built, what the builder reported, and its manifest."""

    path: Path
    report: BuildReport
    manifest: Manifest


def build_engines(
    given: Path,
    workspace: Workspace,
    engines: tuple[Engine, ...] = (),
    *,
    plain: bool = False,
    talk: Talk | None = None,
) -> tuple[Built, ...]:
    """Build engines of a run folder (exported where needed) or an ONNX file; default: those of the run's spec."""
    talk = talk or Silent()
    lowering: tuple[str, ...] | None = None
    if given.suffix == ".onnx":
        onnx = given
    else:
        spec = checkpoint.read_spec(given, catalogs())
        engines = engines or spec.engines
        lowering = spec.export.lowering
        exported = export(given, workspace, plain=plain, again=False)
        onnx = exported.path
        if exported.worst is not None:
            talk.say(f"exported {onnx.as_posix()}, largest difference from the model {exported.worst:.2g}")
    return tuple(build_engine(onnx, engine, workspace, talk, lowering) for engine in engines or (Engine(),))


def build_engine(
    onnx: Path,
    engine: Engine,
    workspace: Workspace,
    talk: Talk | None = None,
    lowering: tuple[str, ...] | None = None,
) -> Built:
    """Build one engine of an ONNX file, lowered by the passes named or else by those that pay for the backend.

    Raises SE401 where the file is not the one its manifest describes.
    """
    talk = talk or Silent()
    backend = BACKENDS.load(engine.backend)()
    origin = require_intact(onnx) if manifest_path(onnx).is_file() else None
    target = workspace.engines / f"{onnx.stem}.{engine.backend}.{engine.precision}{backend.suffix}"
    talk.say(f"building {target.name}")
    with locked(workspace.engines):
        source = _lowered(onnx, engine, backend, workspace, origin, talk, lowering)
        options = BuildOptions(engine.precision, BatchRange(engine.batch.min, engine.batch.opt, engine.batch.max))
        report = backend.build(source, target, options, talk.progress)
        manifest = describe(
            target,
            "engine",
            onnx.stem,
            f"sesurgery build-engine {onnx.as_posix()} --backend {engine.backend} --{engine.precision}",
            parents=(source,),
            spec_digest=origin.spec_digest if origin else None,
            plan_digest=origin.plan_digest if origin else None,
            device=report.device,
            details={
                "run": origin.details.get("run") if origin else None,
                "plain": bool(origin and origin.details.get("plain")),
                "onnx": onnx.as_posix(),
                "backend": engine.backend,
                "precision": engine.precision,
                "batch": [engine.batch.min, engine.batch.opt, engine.batch.max],
                "seconds": report.seconds,
                "convolutions": dict(report.convolutions),
                "notes": list(report.notes),
            },
        )
    return Built(target, report, manifest)


def _lowered(
    onnx: Path,
    engine: Engine,
    backend: Backend,
    workspace: Workspace,
    origin: Manifest | None,
    talk: Talk,
    lowering: tuple[str, ...] | None,
) -> Path:
    """The file as the engine is built from it: itself where nothing changes, else a file of its own in export/."""
    chosen = passes(backend.passes if lowering is None else lowering)
    if not chosen and engine.precision == "fp32":
        return onnx
    model = onnx_io.load(onnx)
    if lowering is None:
        # What pays in general must not keep a file from elsewhere from being built.
        obstacles = {obstacle for step in chosen if (obstacle := step.requires(model)) is not None}
        for obstacle in sorted(obstacles):
            talk.say(f"not lowered for {engine.backend}: {obstacle}")
        chosen = () if obstacles else chosen
    lowered = lower(model, chosen, verify=True) if chosen else Lowered(model, ())
    changed = [edit for edit in lowered.edits if edit.changed]
    if changed:
        talk.say(f"lowered for {engine.backend}: {len(changed)} edits")
    elif engine.precision == "fp32":
        return onnx
    ready = lowered if engine.precision == "fp32" else lower(lowered.model, [PrecisionPass(target=engine.precision)])
    target = workspace.exports / f"{onnx.stem}.{f'{engine.backend}.' if changed else ''}{engine.precision}.onnx"
    onnx_io.save(ready.model, target)
    precise = () if ready is lowered else ready.edits
    describe(
        target,
        "onnx",
        target.stem,
        f"sesurgery build-engine {onnx.as_posix()} --backend {engine.backend} --{engine.precision}",
        parents=(onnx,),
        spec_digest=origin.spec_digest if origin else None,
        plan_digest=origin.plan_digest if origin else None,
        details={
            **(origin.details if origin else {}),
            "precision": engine.precision,
            "lowered": [f"{edit.where}: {edit.why}" for edit in changed],
            "not_lowered": [f"{edit.where}: {edit.why}" for edit in lowered.edits if not edit.changed],
            "kept_fp32": [f"{edit.where}: {edit.why}" for edit in precise if not edit.changed],
        },
    )
    return target
