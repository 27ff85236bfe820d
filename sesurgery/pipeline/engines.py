"""The verb `build-engine`: lower an ONNX file to a precision and build it with a backend."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.artifacts import digest_file, locked
from sesurgery.backends.auto import AUTO
from sesurgery.backends.base import Backend, BatchRange, BuildOptions, BuildReport
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline.data import write_interface
from sesurgery.pipeline.export import export
from sesurgery.pipeline.lowered import lowered, require_possible
from sesurgery.pipeline.specs import catalogs, engine
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.workspace import Workspace
from sesurgery.profiles import parse_profile
from sesurgery.serving import interface
from sesurgery.serving.ingredients import PASSES, ingredients
from sesurgery.spec.model import Batch, Calibration, Engine
from sesurgery.workspace import (
    EngineDetails,
    EngineManifest,
    OnnxManifest,
    describe,
    freshness,
    manifest_path,
    measurements,
    read_manifest,
    relative,
)
from sesurgery.workspace.manifests import AskedEngine
from sesurgery.workspace.origin import Origin

if TYPE_CHECKING:
    from sesurgery.pipeline.auto import Tried

AS_EXPORTED = "as-exported"
"""What the engine without any lowering is called."""


@dataclass(frozen=True)
class Built:
    """An engine, what its builder reported, and its manifest; `why` it was built, None where it was up to date.

    `tried` is what `auto` found of each backend, this one among them.
    """

    path: Path
    report: BuildReport
    manifest: EngineManifest
    why: str | None = None
    tried: tuple[Tried, ...] = ()


def build_engines(
    given: Path,
    workspace: Workspace,
    engines: tuple[Engine, ...] = (),
    *,
    plain: bool = False,
    as_exported: bool = False,
    again: bool = False,
    talk: Talk | None = None,
) -> tuple[Built, ...]:
    """Build engines of a run folder (exported where needed) or an ONNX file; default: those of the run's spec.

    An engine that is up to date is kept, unless `again`. With `as_exported` nothing is lowered, and each engine has a
    name of its own: what the others are measured against.
    """
    talk = talk or Silent()
    lowering: tuple[str, ...] | None = None
    if given.suffix == ".onnx":
        onnx = given
    else:
        spec = checkpoint.read_spec(given, catalogs())
        engines = engines or spec.engines
        lowering = spec.export.lowering
        if not (given / interface.FILE).is_file():
            try:
                write_interface(given, spec)
            except SesurgeryError as error:
                # An engine can be built where the data is not.
                talk.say(f"no {interface.FILE} was written: {error.diagnostics[0].message}")
        exported = export(given, workspace, plain=plain, again=False)
        onnx = exported.path
        if exported.worst is not None:
            talk.say(f"exported {onnx.as_posix()}, largest difference from the model {exported.worst:.2g}")
    engines = engines or (engine(),)
    if as_exported:
        engines, lowering = tuple(map(_under_its_own_name, engines)), ()
    return tuple(
        build_engine(onnx, wanted, workspace, talk, lowering, as_exported=as_exported, again=again)
        for wanted in engines
    )


def _under_its_own_name(wanted: Engine) -> Engine:
    asked = wanted.model_dump(mode="json", by_alias=True)
    return engine({**asked, "name": f"{wanted.name}-{AS_EXPORTED}" if wanted.name else AS_EXPORTED})


def build_engine(
    onnx: Path,
    wanted: Engine,
    workspace: Workspace,
    talk: Talk | None = None,
    lowering: tuple[str, ...] | None = None,
    *,
    as_exported: bool = False,
    again: bool = False,
) -> Built:
    """Build one engine of an ONNX file, lowered by the passes named or else by those that pay for the backend.

    Raises SE401 where the file is not the one its manifest describes.
    """
    talk = talk or Silent()
    if wanted.backend.name == AUTO:
        # It builds engines itself: imported here, as neither module can come first.
        from sesurgery.pipeline.auto import choose

        return choose(onnx, wanted, workspace, talk, lowering, again=again)
    backend: Backend = wanted.backend.options
    given = Origin.read(onnx)
    origin, folder = given.manifest, given.run
    target = target_of(onnx, wanted, workspace)
    require_possible(wanted, given)
    parts = made_of(onnx, wanted, lowering)
    if as_exported:
        parts = {**parts, PASSES: AS_EXPORTED}
    why = "it was asked for" if again else freshness.stale(target, parts)
    if why is None:
        return kept(target)
    talk.say(f"building {target.name}" + (f": {why}" if target.exists() else ""))
    with locked(workspace.engines):
        options = BuildOptions(
            wanted.precision,
            BatchRange(wanted.batch.min, wanted.batch.opt, wanted.batch.max),
            tuple(parse_profile(shapes) for shapes in wanted.shapes),
            as_exported=as_exported,
        )
        extra: Mapping[str, Any]
        if backend.source == "network":
            from sesurgery.pipeline.networks import build_from_network

            source = onnx
            report, extra = build_from_network(backend, given, target, options, talk, lowering)
        else:
            # A file of its own, beside that of the engine that it is measured against.
            label = AS_EXPORTED if as_exported else None
            source = lowered(given, wanted, workspace, talk, lowering, command(onnx, wanted), label=label)
            report = backend.build(source, target, options, talk.progress)
            extra = {**_of_source(source, wanted.precision in backend.uniform), **backend.facts(source)}
        manifest = describe(
            target,
            EngineManifest,
            onnx.stem,
            command(onnx, wanted),
            parents=(source,),
            beside=backend.beside(target),
            spec_digest=origin.spec_digest if origin else None,
            plan_digest=origin.plan_digest if origin else None,
            device=report.device,
            details=EngineDetails(
                run=None if folder is None else relative(folder, target),
                plain=given.plain,
                as_exported=as_exported,
                onnx=relative(onnx, target),
                backend=wanted.backend.name,
                precision=wanted.precision,
                engine=asked(wanted),
                seconds=report.seconds,
                convolutions=dict(report.convolutions),
                notes=tuple(report.notes),
                lowering=lowering,
                ingredients=parts,
                **extra,
            ),
        )
    if folder:
        # They are those of the file that lay there before.
        measurements.forget(folder, target)
    return Built(target, report, manifest, why)


def target_of(onnx: Path, wanted: Engine, workspace: Workspace) -> Path:
    """Where an engine of an ONNX file lies."""
    kind = ".".join(filter(None, (wanted.backend.name, wanted.precision, wanted.name)))
    return workspace.engines / f"{onnx.stem}.{kind}{wanted.backend.options.suffix}"


def asked(wanted: Engine) -> AskedEngine:
    """What was asked for, as an engine's manifest holds it."""
    return AskedEngine.model_validate_json(wanted.model_dump_json(by_alias=True))


def _of_source(source: Path, uniform: bool) -> Mapping[str, Any]:
    """What the manifest of the file that an engine was built of tells: the nodes that stayed fp32, say."""
    made = read_manifest(source, OnnxManifest).details if manifest_path(source).is_file() else None
    weights = {} if made is None or made.int8_weights is None else {"int8_weights": made.int8_weights}
    return {"kept_fp32": () if made is None or uniform else made.kept_fp32, **weights}


def kept(target: Path) -> Built:
    """An engine that is there already, as it was built."""
    manifest = read_manifest(target, EngineManifest)
    details = manifest.details
    report = BuildReport(details.seconds, details.convolutions, manifest.device, details.notes)
    return Built(target, report, manifest)


def made_of(onnx: Path, wanted: Engine, lowering: tuple[str, ...] | None = None) -> dict[str, str]:
    """What decides the bytes of an engine of an ONNX file."""
    calibration = None
    if wanted.calibration.file is not None and Path(wanted.calibration.file).is_file():
        calibration = digest_file(Path(wanted.calibration.file))
    elif wanted.precision in ("int8", "fp16") or "constant_gates" in (lowering or ()):
        # The run's spec names the data set and its split; the file holds neither.
        calibration = read_manifest(onnx).spec_digest if manifest_path(onnx).is_file() else None
        calibration = calibration or "no run"
    return ingredients(onnx, wanted, lowering, calibration)


def command(onnx: Path, wanted: Engine) -> str:
    """The command line that builds this engine."""
    standard = type(wanted.backend.options)()
    words = [f"sesurgery build-engine {onnx.as_posix()} --backend {wanted.backend.name} --{wanted.precision}"]
    if wanted.batch != Batch():
        words.append(f"--batch {wanted.batch.min},{wanted.batch.opt},{wanted.batch.max}")
    words += [f"--shape {shlex.quote(shapes)}" for shapes in wanted.shapes]
    for key, value in wanted.calibration.model_dump().items():
        if value != getattr(Calibration(), key):
            words.append(f"--calibration {shlex.quote(f'{key}={value}' if key != 'file' else str(value))}")
    words += [f"--io {wanted.io}"] * (wanted.io != "keep") + ["--autocast"] * (wanted.converter == "autocast")
    for option, value in dataclasses.asdict(wanted.backend.options).items():
        if value != getattr(standard, option):
            words.append(f"-O {shlex.quote(f'{option}={json.dumps(value)}')}")
    return " ".join(words + [f"--name {name}" for name in filter(None, [wanted.name])])
