"""The verb `package`: an engine as a model of Triton Inference Server.

DIR/NAME/config.pbtxt   inputs, outputs, and dynamic batching
DIR/NAME/labels.txt     class names, where its run's data set has them
DIR/NAME/1/model.*      the engine; the next one packaged under that name is version 2
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import onnx

from sesurgery import temporaries
from sesurgery.artifacts import digest_file, locked, write_text
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.paths import inside, plain_name
from sesurgery.serving import interface
from sesurgery.serving.loadable import backend_of, require_loadable
from sesurgery.serving.triton import KINDS, LABELS, Kind, Tensor, configuration, notes_of, tensors_of
from sesurgery.workspace import (
    EngineManifest,
    PackageDetails,
    PackageManifest,
    Provenance,
    belonging,
    describe,
    relative,
)

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Packaged:
    """A version of a model on a server; `notes` say how it differs from the engine that was verified."""

    folder: Path
    version: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def package(engine: Path, repository: Path, name: str | None = None, *, foreign: bool = False) -> Packaged:
    """Put an engine into a model repository, as the next version of `name` (default: the run's or the file's).

    Raises SE603 for an engine that Triton has no backend for, or from elsewhere (unless `foreign`), SE402 if the
    ONNX file that it was built from is gone, SE405 if the model is there with another configuration.
    """
    manifest = require_loadable(engine, foreign=foreign)
    details = manifest.details
    kind = KINDS.get(details.backend)
    if kind is None:
        text = f"Triton has no backend for engines of {details.backend!r}"
        raise fail("SE603", text, f"build one with {', '.join(sorted(KINDS))}")
    if getattr(backend_of(manifest), "stripped", False):
        text = f"{engine} has no weights, and Triton would not put them in"
        raise fail("SE603", text, f"put them in: `sesurgery refit {engine.as_posix()} -o OUT`, and package that")
    source = _source(engine, manifest)
    inputs, outputs = tensors_of(source)
    classes = _classes(engine, manifest, outputs)
    name = plain_name(name or details.onnx.rpartition("/")[2].removesuffix(".onnx"), "the model's name")
    config = configuration(name, kind, inputs, outputs, manifest, labels=bool(classes))
    notes = notes_of(kind, manifest, "dynamic_batching" in config)
    model = repository / name
    with locked(repository):
        # A repository lies outside the folders that every command cleans.
        temporaries.sweep(model, *model.glob("*/"))
        _write_once(model / CONFIG, config)
        if classes:
            _write_once(model / LABELS, "".join(f"{label}\n" for label in classes))
        version, files = _place(model, _files(engine, manifest, source, kind))
    main = files[0]
    describe(
        main,
        Provenance(
            PackageManifest,
            name,
            f"sesurgery package {engine.as_posix()} --triton {repository.as_posix()} --name {name}",
            parents=(engine, source),
            beside=files[1:],
            device=manifest.device,
            details=PackageDetails(server="triton", version=version, engine=relative(engine, main), notes=notes),
        ),
    )
    return Packaged(model, version, files, notes)


def _source(engine: Path, manifest: EngineManifest) -> Path:
    """The ONNX file that the engine was built from, which names its inputs and outputs."""
    parents = manifest.parent_files(engine)
    for path, digest in parents.items():
        if path.is_file() and digest_file(path) == digest:
            return path
    names = ", ".join(path.as_posix() for path in parents)
    text = f"{names}, which {engine} was built from, is gone or was changed"
    raise fail("SE402", text, f"build it again: `{manifest.command}`")


def _classes(engine: Path, manifest: EngineManifest, outputs: list[Tensor]) -> tuple[str, ...]:
    """Class names, if there is one output with as many values as there are names."""
    if not manifest.details.run:
        return ()
    try:
        classes = interface.of(engine, manifest).classes
    except SesurgeryError:
        # Class names are optional.
        return ()
    return classes if len(outputs) == 1 and outputs[0].shape[1:] == (len(classes),) else ()


def _files(engine: Path, manifest: EngineManifest, source: Path, kind: Kind) -> dict[str, Path]:
    """The files of a version, by their names on the server."""
    if not kind.from_source:
        files = tuple(belonging(engine, manifest))
        if len(files) != len(kind.files):
            text = (
                f"the manifest of {engine} names {len(files)} files, an engine of {kind.backend} has {len(kind.files)}"
            )
            raise fail("SE401", text, f"build it again: `{manifest.command}`")
        return dict(zip(kind.files, files, strict=True))
    (main,) = kind.files
    weights = onnx_io.outside(onnx.load(source, load_external_data=False), source)
    if main in weights:
        text = f"{source} keeps weights in a file that is called {main}, as the server calls the model itself"
        raise fail("SE603", text, "write it again with `sesurgery lower`, and build the engine of that")
    # External weights are looked for beside the file, under the name stored in it.
    return {main: source, **dict(sorted(weights.items()))}


def _place(model: Path, files: Mapping[str, Path]) -> tuple[int, tuple[Path, ...]]:
    """Copy the files into the next version's folder, which appears only when complete: a server may be watching."""
    there = [int(path.name) for path in model.iterdir() if path.is_dir() and path.name.isdigit()]
    version = max(there, default=0) + 1
    with temporaries.folder(model / "version") as folder:
        whole = folder / str(version)
        whole.mkdir()
        for name, path in files.items():
            place = inside(whole, name, f"a file of version {version}")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        whole.rename(model / str(version))
    return version, tuple(model / str(version) / name for name in files)


def _write_once(path: Path, text: str) -> None:
    """Write a file that all versions share; raises SE405 if a different one is there."""
    if not path.exists():
        write_text(path, text)
    elif (before := path.read_text(encoding="utf-8")) != text:
        pairs = zip_longest(before.splitlines(), text.splitlines(), fillvalue="nothing")
        old, new = next((old.strip(), new.strip()) for old, new in pairs if old != new)
        what = f"{path} is there and says {old!r} where this engine needs {new!r}"
        raise fail("SE405", what, "give the model another --name, or remove the folder")
