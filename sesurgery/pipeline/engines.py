"""The verb `build-engine`: engines of a run or of an ONNX file, each by its backend, or by the fastest."""

from __future__ import annotations

from pathlib import Path

from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline.build_request import AS_EXPORTED, BuildRequest, labelled
from sesurgery.pipeline.building import BuildResult, build
from sesurgery.pipeline.data import write_interface
from sesurgery.pipeline.export import export
from sesurgery.pipeline.specs import catalogs, engine
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.workspace import Workspace
from sesurgery.serving import interface
from sesurgery.spec.choice import AUTO
from sesurgery.spec.engines import Engine


def build_engines(
    given: Path,
    workspace: Workspace,
    engines: tuple[Engine, ...] = (),
    *,
    plain: bool = False,
    as_exported: bool = False,
    again: bool = False,
    talk: Talk | None = None,
) -> tuple[BuildResult, ...]:
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
    requests = [
        BuildRequest(onnx, wanted, workspace, talk, lowering, as_exported=as_exported, again=again)
        for wanted in engines
    ]
    return tuple(map(build_engine, requests))


def build_engine(request: BuildRequest) -> BuildResult:
    """Build one engine of an ONNX file, lowered by the passes named or else by those that pay for the backend.

    Raises SE401 where the file is not the one its manifest describes.
    """
    if request.wanted.backend.name != AUTO:
        return build(request)
    # It compares with a trained model and runs a race: most builds do neither.
    from sesurgery.pipeline.choose import choose

    return choose(request)


def obstacle(wanted: Engine) -> str | None:
    """Why an engine cannot be built here, or None; of `auto`, that is known once it was tried."""
    if wanted.backend.name == AUTO:
        return None
    found: str | None = wanted.backend.options.probe().builds
    return found


def _under_its_own_name(wanted: Engine) -> Engine:
    given = wanted.model_dump(mode="json", by_alias=True)
    return engine({**given, "name": labelled(wanted, AS_EXPORTED)})
