"""One engine of an ONNX file by one backend, with its manifest; an engine that is up to date is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesurgery.artifacts import locked
from sesurgery.backends.base import BuildReport, BuildsFromNetwork, BuildsFromOnnx
from sesurgery.pipeline.build_engine.lowered import lowered, require_possible
from sesurgery.pipeline.build_engine.request import BuildRequest
from sesurgery.workspace import (
    EngineDetails,
    EngineManifest,
    OnnxManifest,
    Provenance,
    describe,
    freshness,
    manifest_path,
    measurements,
    read_manifest,
    relative,
)
from sesurgery.workspace.origin import Origin


@dataclass(frozen=True)
class Attempt:
    """A backend that `auto` tried. `left` says why its engine was not kept, None if it was; times in milliseconds."""

    backend: str
    median_ms: float | None = None
    max_abs: float | None = None
    left: str | None = None


@dataclass(frozen=True)
class BuildResult:
    """An engine, what its builder reported, and its manifest; `why` it was built, None if it was up to date.

    `tried` is what `auto` found of each backend, this one among them.
    """

    path: Path
    report: BuildReport
    manifest: EngineManifest
    why: str | None = None
    tried: tuple[Attempt, ...] = ()


def build(request: BuildRequest) -> BuildResult:
    """Build an engine, of the file lowered for it; raises SE401 if the file is not the one of its manifest."""
    onnx, wanted, target = request.onnx, request.wanted, request.target
    given = Origin.read(onnx)
    require_possible(wanted, given)
    ingredients = request.ingredients()
    why = "it was asked for" if request.again else freshness.stale(target, ingredients)
    if why is None:
        return existing(target)
    request.talk.say(f"building {target.name}" + (f": {why}" if target.exists() else ""))
    with locked(request.workspace.engines):
        source, report, found = _built(request, given)
        manifest = describe(
            target,
            Provenance(
                EngineManifest,
                onnx.stem,
                request.command,
                parents=(source,),
                beside=request.backend.beside(target),
                spec_digest=given.manifest.spec_digest if given.manifest else None,
                plan_digest=given.manifest.plan_digest if given.manifest else None,
                device=report.device,
                details=EngineDetails(
                    run=None if given.run is None else relative(given.run, target),
                    plain=given.plain,
                    as_exported=request.as_exported,
                    onnx=relative(onnx, target),
                    backend=wanted.backend.name,
                    precision=wanted.precision,
                    engine=request.asked,
                    seconds=report.seconds,
                    convolutions=dict(report.convolutions),
                    notes=tuple(report.notes),
                    lowering=request.lowering,
                    ingredients=ingredients,
                    **found,
                ),
            ),
        )
    if given.run:
        # Measurements there are of the previous file.
        measurements.forget(given.run, target)
    return BuildResult(target, report, manifest, why)


def _built(request: BuildRequest, given: Origin) -> tuple[Path, BuildReport, Mapping[str, Any]]:
    """The file that the engine is built from, the builder's report, and what the manifest keeps of both."""
    backend = request.backend
    if isinstance(backend, BuildsFromNetwork):
        from sesurgery.pipeline.build_engine.from_network import build_from_network

        return request.onnx, *build_from_network(request, backend, given)
    if not isinstance(backend, BuildsFromOnnx):
        raise TypeError(f"{type(backend).__name__} has neither build nor build_network")
    source = lowered(request, given)
    report = backend.build(source, request.target, request.options, request.talk.progress)
    of_source = _of_source(source, request.wanted.precision in request.backend.uniform)
    return source, report, {**of_source, **request.backend.facts(source)}


def _of_source(source: Path, uniform: bool) -> Mapping[str, Any]:
    """Details from the manifest of the file that an engine was built from, such as the nodes that stayed fp32."""
    made = read_manifest(source, OnnxManifest).details if manifest_path(source).is_file() else None
    weights = {} if made is None or made.int8_weights is None else {"int8_weights": made.int8_weights}
    return {"kept_fp32": () if made is None or uniform else made.kept_fp32, **weights}


def existing(target: Path) -> BuildResult:
    """The result for an engine that exists already."""
    manifest = read_manifest(target, EngineManifest)
    details = manifest.details
    report = BuildReport(details.seconds, details.convolutions, manifest.device, details.notes)
    return BuildResult(target, report, manifest)
