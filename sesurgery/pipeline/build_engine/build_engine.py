"""The verb `build-engine`: engines of a run or of an ONNX file, each by its backend, or by the fastest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline.build_engine.building import BuildResult, build
from sesurgery.pipeline.build_engine.request import AS_EXPORTED, BuildRequest, labelled
from sesurgery.pipeline.export import export
from sesurgery.pipeline.specs import catalogs, engine
from sesurgery.serving import interface
from sesurgery.spec import Spec
from sesurgery.spec.engines import Engine
from sesurgery.talk import Silent, Talk
from sesurgery.workspace.folders import Workspace


@dataclass(frozen=True)
class EnginesRequest:
    """A request for engines of a run's folder (exported where needed) or of an ONNX file."""

    source: Path
    workspace: Workspace
    engines: tuple[Engine, ...] = ()
    """Left out: those of the run's spec."""
    plain: bool = False
    """Whether to build the network without its blocks."""
    as_exported: bool = False
    """Whether to lower nothing, under separate names: the baseline for other engines."""
    again: bool = False
    """Whether to build again engines that are up to date."""
    talk: Talk = field(default_factory=Silent)


def build_engines(request: EnginesRequest) -> tuple[BuildResult, ...]:
    """Build engines. An engine that is up to date is kept."""
    onnx, engines, lowering = request.source, request.engines, None
    if onnx.suffix != ".onnx":
        spec = checkpoint.read_spec(request.source, catalogs())
        onnx, engines, lowering = _exported(request, spec), engines or spec.engines, spec.export.lowering
    engines = engines or (engine(),)
    if request.as_exported:
        engines, lowering = tuple(map(_under_its_own_name, engines)), ()
    more = {"as_exported": request.as_exported, "again": request.again}
    requests = [BuildRequest(onnx, wanted, request.workspace, request.talk, lowering, **more) for wanted in engines]
    return tuple(map(build_engine, requests))


def _exported(request: EnginesRequest, spec: Spec) -> Path:
    """Export the run to ONNX, and write its interface beside the run."""
    if not (request.source / interface.FILE).is_file():
        try:
            interface.write_for(request.source, spec)
        except SesurgeryError as error:
            # An engine can be built where the data is not.
            request.talk.say(f"no {interface.FILE} was written: {error.diagnostics[0].message}")
    exported = export(request.source, request.workspace, plain=request.plain, again=False)
    if exported.worst is not None:
        path = exported.path.as_posix()
        request.talk.say(f"exported {path}, largest difference from the model {exported.worst:.2g}")
    return exported.path


def build_engine(request: BuildRequest) -> BuildResult:
    """Build one engine of an ONNX file, lowered by the passes named or else by those that pay for the backend.

    Raises SE401 if the file is not the one its manifest describes.
    """
    if not request.wanted.chosen_by_race:
        return build(request)
    # Imported late: most builds need neither the trained model nor a race.
    from sesurgery.pipeline.build_engine.choose import choose

    return choose(request)


def obstacle(wanted: Engine) -> str | None:
    """Why an engine cannot be built here, or None. For `auto` this is only known after trying."""
    if wanted.chosen_by_race:
        return None
    found: str | None = wanted.backend.options.probe().builds
    return found


def _under_its_own_name(wanted: Engine) -> Engine:
    given = wanted.model_dump(mode="json", by_alias=True)
    return engine({**given, "name": labelled(wanted, AS_EXPORTED)})
