"""The verb `build-engine`: lower an ONNX file to a precision and build it with a backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import Manifest, describe, locked, manifest_path, require_intact
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import BatchRange, BuildOptions, BuildReport
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
    if given.suffix == ".onnx":
        onnx = given
    else:
        engines = engines or checkpoint.read_spec(given, catalogs()).engines
        exported = export(given, workspace, plain=plain, again=False)
        onnx = exported.path
        if exported.worst is not None:
            talk.say(f"exported {onnx.as_posix()}, largest difference from the model {exported.worst:.2g}")
    return tuple(build_engine(onnx, engine, workspace, talk) for engine in engines or (Engine(),))


def build_engine(onnx: Path, engine: Engine, workspace: Workspace, talk: Talk | None = None) -> Built:
    """Build one engine of an ONNX file; raises SE401 where the file is not the one its manifest describes."""
    talk = talk or Silent()
    backend = BACKENDS.load(engine.backend)()
    origin = require_intact(onnx) if manifest_path(onnx).is_file() else None
    target = workspace.engines / f"{onnx.stem}.{engine.backend}.{engine.precision}{backend.suffix}"
    talk.say(f"building {target.name}")
    with locked(workspace.engines):
        source = _lowered(onnx, engine, workspace, origin)
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


def _lowered(onnx: Path, engine: Engine, workspace: Workspace, origin: Manifest | None) -> Path:
    """The file in the engine's precision: itself for fp32, `export/x.fp16.onnx` for fp16."""
    if engine.precision == "fp32":
        return onnx
    lowered = lower(onnx_io.load(onnx), [PrecisionPass(target=engine.precision)])
    target = workspace.exports / f"{onnx.stem}.{engine.precision}.onnx"
    onnx_io.save(lowered.model, target)
    describe(
        target,
        "onnx",
        target.stem,
        f"sesurgery build-engine {onnx.as_posix()} --{engine.precision}",
        parents=(onnx,),
        spec_digest=origin.spec_digest if origin else None,
        plan_digest=origin.plan_digest if origin else None,
        details={
            **(origin.details if origin else {}),
            "precision": engine.precision,
            "kept_fp32": [f"{edit.where}: {edit.why}" for edit in lowered.edits if not edit.changed],
        },
    )
    return target
