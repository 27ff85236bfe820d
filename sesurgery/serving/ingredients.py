"""The inputs that decide the bytes of an engine, by name. An engine is stale when one of them has changed."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from sesurgery.artifacts import cpu_kind, cpu_name, digest_file, digest_text
from sesurgery.backends.base import Backend
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.engines import Engine

FILE = "the ONNX file"
PASSES = "the lowering passes"
OPTIONS = "what was asked for"
CALIBRATION = "the calibration data"
PROGRAM = "the version of sesurgery"
VERSION = "the backend's version"
DEVICE = "the device"


def ingredients(
    onnx: Path, wanted: Engine, lowering: tuple[str, ...] | None = None, calibration: str | None = None
) -> dict[str, str]:
    """What decides the bytes of an engine of this file; `calibration` is a digest of the samples, for int8."""
    backend: Backend = wanted.backend.options
    found = {
        FILE: digest_onnx(onnx),
        PASSES: named(backend.passes if lowering is None else lowering),
        OPTIONS: asked_for(wanted),
        **built_here(wanted.backend.name, backend),
        PROGRAM: importlib.metadata.version("sesurgery"),
    }
    return found if calibration is None else {**found, CALIBRATION: calibration}


def named(passes: Sequence[str]) -> str:
    """The name of a list of lowering passes among the ingredients."""
    return ", ".join(passes) or "none"


def asked_for(wanted: Engine) -> str:
    """Everything an engine was asked for, except its name."""
    asked = wanted.model_dump(mode="json", by_alias=True)
    # An engine that was built before there was such a thing to ask for is the same where nothing is.
    left = {"name"} if wanted.keep_fp32 else {"name", "keep_fp32"}
    return json.dumps({key: asked[key] for key in sorted(asked) if key not in left}, sort_keys=True)


def digest_onnx(path: Path) -> str:
    """SHA-256 of a file, or of it and of the files that hold its weights."""
    if not path.is_file():
        return ""
    from sesurgery.onnxgraph import io as onnx_io

    digests = [digest_file(path)]
    try:
        files = onnx_io.files(path)
    except SesurgeryError:  # no ONNX file: the build says so, and better
        return digests[0]
    for beside in files[1:]:
        if beside.is_file() and (found := digest_file(beside)) not in digests:
            digests.append(found)
    return digests[0] if len(digests) == 1 else digest_text(" ".join(digests))


def machine(backend: Backend) -> str:
    """The device that a backend builds for, without what does not decide an engine (the number of free cores)."""
    device = backend.device()
    return cpu_kind() if device == cpu_name() else device


def built_here(name: str, backend: Backend) -> dict[str, str]:
    """The version and device of this machine; left out where they cannot be determined."""
    ability = backend.probe()
    found = {} if ability.version is None else {VERSION: f"{name} {ability.version}"}
    return found if ability.builds is not None else {**found, DEVICE: machine(backend)}
