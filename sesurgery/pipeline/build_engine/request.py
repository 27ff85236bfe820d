"""A request for an engine: its path, what decides its bytes, and the command that builds it again."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.backends.base import Backend, BatchRange, BuildOptions
from sesurgery.pipeline.specs import engine
from sesurgery.profiles import parse_profile
from sesurgery.serving.ingredients import PASSES, ingredients
from sesurgery.spec.engines import BatchSizes, Calibration, Engine
from sesurgery.spec.passes import pass_named
from sesurgery.talk import Silent, Talk
from sesurgery.workspace import manifest_path, read_manifest
from sesurgery.workspace.details import AskedEngine
from sesurgery.workspace.folders import Workspace

AS_EXPORTED = "as-exported"
"""The name of the engine without any lowering."""


@dataclass(frozen=True)
class BuildRequest:
    """An engine of an ONNX file. `lowering` names the passes before it, None leaves them to the backend."""

    onnx: Path
    wanted: Engine
    workspace: Workspace
    talk: Talk = field(default_factory=Silent)
    lowering: tuple[str, ...] | None = None
    as_exported: bool = False
    """Whether neither a pass nor the backend changes the network: the baseline for other engines."""
    again: bool = False
    """Whether to build again an engine that is up to date."""
    proved: bool = True
    """Whether passes prove that they kept the function: an engine that is only timed needs no proof."""

    @property
    def backend(self) -> Backend:
        backend: Backend = self.wanted.backend.options
        return backend

    @property
    def target(self) -> Path:
        """The path of the engine."""
        kind = ".".join(filter(None, (self.wanted.backend.name, self.wanted.precision, self.wanted.name)))
        return self.workspace.engines / f"{self.onnx.stem}.{kind}{self.backend.suffix}"

    @property
    def options(self) -> BuildOptions:
        """The options for the backend."""
        batch = self.wanted.batch
        return BuildOptions(
            self.wanted.precision,
            BatchRange(batch.min, batch.opt, batch.max),
            tuple(parse_profile(shapes) for shapes in self.wanted.shapes),
            as_exported=self.as_exported,
            keep_fp32=self.wanted.keep_fp32,
        )

    @property
    def asked(self) -> AskedEngine:
        """What was asked for, as an engine's manifest holds it."""
        return asked(self.wanted)

    @property
    def command(self) -> str:
        """The command line that builds this engine."""
        return command(self.onnx, self.wanted)

    def ingredients(self) -> dict[str, str]:
        """What decides the bytes of the engine."""
        found = ingredients_of(self.onnx, self.wanted, self.lowering)
        return {**found, PASSES: AS_EXPORTED} if self.as_exported else found

    def of(self, backend: str, label: str) -> BuildRequest:
        """The same engine of another backend, with a label in its name."""
        given = self.wanted.model_dump(mode="json", by_alias=True)
        return replace(self, wanted=engine({**given, "backend": backend, "name": labelled(self.wanted, label)}))


def labelled(wanted: Engine, label: str) -> str:
    """The name of an engine with a label in it."""
    return f"{wanted.name}-{label}" if wanted.name else label


def asked(wanted: Engine) -> AskedEngine:
    """What was asked for, as an engine's manifest holds it."""
    return AskedEngine.model_validate_json(wanted.model_dump_json(by_alias=True))


def ingredients_of(onnx: Path, wanted: Engine, lowering: tuple[str, ...] | None = None) -> dict[str, str]:
    """What decides the bytes of an engine of an ONNX file."""
    calibration = None
    if wanted.calibration.file is not None and Path(wanted.calibration.file).is_file():
        calibration = digest_file(Path(wanted.calibration.file))
    elif wanted.precision in ("int8", "fp16") or any(
        pass_named(text).name == "constant_gates" for text in lowering or ()
    ):
        # The run's spec names the data set and its split; the file holds neither.
        calibration = read_manifest(onnx).spec_digest if manifest_path(onnx).is_file() else None
        calibration = calibration or "no run"
    return ingredients(onnx, wanted, lowering, calibration)


def command(onnx: Path, wanted: Engine) -> str:
    """The command line that builds this engine."""
    standard = type(wanted.backend.options)()
    path = shlex.quote(onnx.as_posix())
    words = [f"sesurgery build-engine {path} --backend {wanted.backend.name} --{wanted.precision}"]
    if wanted.batch != BatchSizes():
        words.append(f"--batch {wanted.batch.min},{wanted.batch.opt},{wanted.batch.max}")
    words += [f"--shape {shlex.quote(shapes)}" for shapes in wanted.shapes]
    for key, value in wanted.calibration.model_dump().items():
        if value != getattr(Calibration(), key):
            words.append(f"--calibration {shlex.quote(f'{key}={value}' if key != 'file' else str(value))}")
    words += [f"--keep-fp32 {shlex.quote(glob)}" for glob in wanted.keep_fp32]
    words += [f"--io {wanted.io}"] * (wanted.io != "keep") + ["--autocast"] * (wanted.converter == "autocast")
    for option, value in dataclasses.asdict(wanted.backend.options).items():
        if value != getattr(standard, option):
            words.append(f"-O {shlex.quote(f'{option}={json.dumps(value)}')}")
    return " ".join(words + [f"--name {name}" for name in filter(None, [wanted.name])])
