"""The verb `refit`: put the weights of an ONNX file into an engine that was built for it, without building again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sesurgery import temporaries
from sesurgery.artifacts import locked
from sesurgery.backends.base import TakesWeights
from sesurgery.backends.inputs import onnx_network as weights
from sesurgery.catalog import Ref
from sesurgery.diagnostics import fail
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.pipeline.build_engine.lowered import lowered
from sesurgery.pipeline.build_engine.request import BuildRequest, asked, command, ingredients_of
from sesurgery.pipeline.specs import engine_of
from sesurgery.serving import ingredients
from sesurgery.serving.loadable import require_loadable
from sesurgery.spec.engines import Engine
from sesurgery.talk import Silent, Talk
from sesurgery.workspace import EngineManifest, Provenance, describe, manifest_path, measurements, relative, run_folder
from sesurgery.workspace.details import Refitted
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.origin import Origin
from sesurgery.workspace.targets import claim

ASIDE = "refit"
"""Prefix of the temporary folder for a file that is still to be checked."""


@dataclass(frozen=True)
class Given:
    """A file with weights, whether the user named it, and the passes that lowered the engine's own file."""

    file: Origin
    asked_for: bool
    passes: tuple[str, ...] | None


@dataclass(frozen=True)
class RefitResult:
    """The refitted engine, and the file its weights came from; `changed` if they differ from those before."""

    path: Path
    source: Path
    changed: bool
    manifest: EngineManifest


@dataclass(frozen=True)
class RefitRequest:
    """An engine that is to be written to `target` with the weights of `onnx`, by default of the file it was built from.

    With `foreign` an engine of another version or device is accepted. Without `force` only files written by this
    program are replaced.
    """

    engine: Path
    target: Path
    workspace: Workspace
    onnx: Path | None = None
    talk: Talk = field(default_factory=Silent)
    foreign: bool = False
    force: bool = False


def refit(request: RefitRequest) -> RefitResult:
    """Put weights into an engine. A file that was not lowered for the engine is, by the same passes.

    Raises SE603 if the engine takes no weights, cannot be loaded here, or is of another network than the file, SE405
    where the target is a file that it needs or, without `force`, one not written here; nothing is written then.
    """
    engine, target, workspace = request.engine, request.target, request.workspace
    manifest = require_loadable(engine, foreign=request.foreign)
    wanted = engine_of(manifest)
    backend = _refittable(engine, wanted)
    known = weights.recorded(manifest)
    if known is None:
        text = f"the manifest of {engine} does not say which network it is of"
        raise fail("SE603", text, f"build it again: `{manifest.command}`")
    given = _given(request.onnx, engine, manifest)
    # The engine itself may be replaced: its old weights are in the ONNX file they came from.
    claim(target, needs=onnx_io.files(given.file.path), force=request.force or target.resolve() == engine.resolve())
    with _fitting(request, given, known, wanted) as source:
        changed = weights.read(source).values != known.values
        if changed and not backend.refit:
            text = f"{engine} takes no weights but those it was built of, and {given.file.path} has others"
            raise fail("SE603", text, f"build it to take others: `{manifest.command} -O refit=true`")
        with locked(target.parent):
            backend.put_weights(engine, source, target)
            source = _moved_into_place(source, workspace)
            made = _describe(request, manifest, _full(wanted), source, given)
    if (folder := run_folder(target, made)) is not None:
        # They are those of the file that lay there before.
        measurements.forget(folder, target)
    return RefitResult(target, source, changed, made)


def _refittable(engine: Path, wanted: Engine) -> TakesWeights:
    """The backend, if it can refit here; raises SE603 otherwise."""
    backend = wanted.backend.options
    if not isinstance(backend, TakesWeights):
        text = f"{engine} is an engine of {wanted.backend.name}, whose weights cannot be replaced"
        raise fail("SE603", text, "build it again; tensorrt and tensorrt-rtx have the option refit")
    if not backend.takes_weights:
        text = f"{engine} was not built to take weights"
        raise fail("SE603", text, "build it with -O refit=true, or -O stripped=true")
    ability = backend.probe()
    if ability.runs is not None:
        text = (
            f"{backend.title} cannot put weights into {engine} here: it loads an engine on a GPU only; {ability.runs}"
        )
        raise fail("SE603", text, ability.remedy)
    return backend


def _given(onnx: Path | None, engine: Path, manifest: EngineManifest) -> Given:
    path = onnx or weights.origin(engine)
    if not path.is_file():
        raise fail("SE402", f"{path} is not there", "export the model first")
    # None: the backend's default passes, which are skipped where they do not fit a file.
    return Given(Origin.read(path), onnx is not None, manifest.details.lowering)


@contextmanager
def _fitting(request: RefitRequest, given: Given, known: weights.Network, wanted: Engine) -> Iterator[Path]:
    """The given file if it is of the engine's network, else its lowered form in a temporary folder."""
    path = given.file.path
    if known.difference(weights.read(path)) is None:
        yield path
        return
    exports = request.workspace.exports
    exports.mkdir(parents=True, exist_ok=True)
    with temporaries.folder(exports / ASIDE) as folder:
        aside = replace(request.workspace, root=folder)
        source = lowered(BuildRequest(path, wanted, aside, request.talk, given.passes), given.file)
        if (why := known.difference(weights.read(source))) is not None:
            text = f"{path} is not of the network that the engine was built for: {why}"
            raise fail("SE603", text, "only the values of weights may be others: build an engine of this file")
        yield source


def _full(wanted: Engine) -> Engine:
    """The engine's options once it has its weights: none are put in when it is loaded."""
    backend: TakesWeights = wanted.backend.options
    return wanted.model_copy(update={"backend": Ref(wanted.backend.name, backend.with_weights())})


def _moved_into_place(source: Path, workspace: Workspace) -> Path:
    """Move the lowered file to where a build would have written it."""
    if not source.parent.parent.name.startswith(f".{ASIDE}."):
        return source
    for path in (*onnx_io.beside(source), source, manifest_path(source)):
        path.replace(workspace.exports / path.name)
    return workspace.exports / source.name


def _describe(
    request: RefitRequest, before: EngineManifest, full: Engine, source: Path, given: Given
) -> EngineManifest:
    """The manifest of the refitted engine; with a given file, run and digests are those of that file."""
    engine, target = request.engine, request.target
    written = dict(before.details.ingredients)
    spec, plan = before.spec_digest, before.plan_digest
    onnx, folder, plain = before.onnx_file(engine), run_folder(engine, before), before.details.plain
    if given.asked_for:
        origin = given.file.manifest
        spec, plan = (origin.spec_digest, origin.plan_digest) if origin else (None, None)
        onnx, folder, plain = given.file.path, given.file.run, given.file.plain
        # It is still the version and the device that it was built with and for.
        kept = {what: written[what] for what in (ingredients.VERSION, ingredients.DEVICE) if what in written}
        written = {**ingredients_of(onnx, full, given.passes), **kept}
    written[ingredients.OPTIONS] = ingredients.asked_for(full)
    again = f"sesurgery refit {engine.as_posix()} --onnx {source.as_posix()} -o {target.as_posix()}"
    if engine.resolve() == target.resolve():
        # The stripped engine is gone: a build makes an equal one.
        again = command(onnx, full)
    # The notes of an engine without weights hold no more.
    gone = engine_of(before).backend.options.remarks()
    changes = {
        "run": None if folder is None else relative(folder, target),
        "onnx": relative(onnx, target),
        "plain": plain,
        "engine": asked(full),
        "notes": tuple(note for note in before.details.notes if note not in gone),
        "network": weights.read(source).recorded(),
        "refitted": Refitted(engine=relative(engine, target), sha256=before.sha256),
        "ingredients": written,
    }
    return describe(
        target,
        Provenance(
            EngineManifest,
            onnx.stem,
            again,
            parents=(source,),
            spec_digest=spec,
            plan_digest=plan,
            device=before.device,
            details=before.details.model_copy(update=changes),
        ),
    )
