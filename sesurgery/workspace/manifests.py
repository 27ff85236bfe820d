"""Typed manifests, one for each kind of artefact: where a file came from, and the details of its kind.

Every path in a manifest is relative to the folder that the artefact lies in, so that a workspace can be moved or copied
whole. Unknown keys are kept: a later version may have written them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from sesurgery import trust
from sesurgery.artifacts import digest_text
from sesurgery.reasons import Reason

if TYPE_CHECKING:
    from sesurgery.spec import Spec

VERSION: Literal[2] = 2
"""1: paths as they were named, from the folder that the command ran in. 2: paths from the artefact's folder."""


_LONGEST_PATH, _LONGEST_NAME = 4096, 255


def _place(text: str) -> str:
    if "\0" in text or len(text) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in text.split("/")):
        raise ValueError("a path that no file can have")
    return text


Place = Annotated[str, AfterValidator(_place)]
"""A path, as far as it can be one."""
Batch = Annotated[int, Field(gt=0, le=65536)]
"""As in a spec: what a stranger's file says is allocated, too."""


class Details(BaseModel):
    """The fields of one kind of artefact; a report has none."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Parent(BaseModel):
    """A file that an artefact was made from, or that belongs to it; its path is relative to the artefact's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    path: Place
    sha256: str


class RunDetails(Details):
    """Details of a run's weights: the cost of the plan, and how far training got.

    `spec` is the path of the file it came from.
    """

    spec: Place | None = None
    sites: int = 0
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    top1: float | None = None
    epochs: int | None = None
    applied: str | None = None
    """SHA-256 of the weights that training started from."""
    trained_in: Place | None = None
    """The run whose training these weights came from, where it is another: trials of a study may share one."""
    new_head: tuple[str, ...] = ()
    """The layers of the head, where the weights that the run began with were of other classes."""
    began: Parent | None = None
    """The weights of another run that this one began with, which are among its parents."""
    code: dict[str, str | None] = {}
    """Each factory that the spec names, with a seal of the place where it lay; None for one that is installed."""


class Int8Weights(Details):
    """How many bits int8 weights take, why, and what the proof of the integer kernels found."""

    bits: int
    why: str
    kernels: str


class OnnxDetails(Details):
    """Details of an ONNX file. `run` is the run it came from; each verb sets some of the fields.

    export: run, plain, precision, opset, nodes, max_abs_by_batch. apply: spec, sites, removals, nodes, notes.
    lower: passes, edits, difference, notes. build-engine, of the file that an engine is built from: the rest.
    """

    run: Place | None = None
    plain: bool = False
    spec: Place | None = None
    precision: str | None = None
    opset: int | None = None
    nodes: int | None = None
    max_abs_by_batch: dict[str, float] = {}
    sites: int | None = None
    removals: int | None = None
    notes: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    edits: int | None = None
    difference: float | None = None
    lowered: tuple[Reason, ...] = ()
    not_lowered: tuple[Reason, ...] = ()
    lowering_samples: str | None = None
    lowering_notes: tuple[str, ...] = ()
    kept_fp32: tuple[Reason, ...] = ()
    calibration: str | None = None
    method: str | None = None
    int8_weights: Int8Weights | None = None


class BackendOptions(Details):
    """A backend's name, with the options an engine was built with as extra keys."""

    backend: str


class BatchSizes(Details):
    """The smallest batch that an engine takes, the one that it is tuned for, and the largest."""

    min: Batch
    opt: Batch
    max: Batch


class AskedEngine(Details):
    """One entry of a spec's `engines:` as it was built; only what is read without the spec's own model is typed."""

    backend: BackendOptions
    batch: BatchSizes
    shapes: tuple[str, ...]


class NetworkDigests(Details):
    """Which network an engine is of: see `sesurgery.backends.inputs.onnx_network`."""

    structure: str
    values: str
    weights: dict[str, str]


class Refitted(Details):
    """The engine that weights were put into."""

    engine: str
    sha256: str


class TriedBackend(Details):
    """What `auto` found of one backend; `left` says why it was not kept."""

    backend: str
    median_ms: float | None = None
    max_abs: float | None = None
    left: str | None = None


class Choice(Details):
    """What `auto` chose among; `key` is a digest of the candidates."""

    key: str
    tried: tuple[TriedBackend, ...]


class EngineDetails(Details):
    """Details of an engine: the request, what it was built from, and what the builder reported."""

    run: Place | None = None
    plain: bool = False
    as_exported: bool = False
    """Built without any lowering, as a baseline."""
    onnx: Place
    backend: str
    precision: str
    engine: AskedEngine
    seconds: float
    convolutions: dict[str, int]
    notes: tuple[str, ...] = ()
    lowered: tuple[Reason, ...] = ()
    not_lowered: tuple[Reason, ...] = ()
    kept_fp32: tuple[Reason, ...] = ()
    int8_weights: Int8Weights | None = None
    lowering: tuple[str, ...] | None = None
    """The passes that were named for it; None: the backend's default passes."""
    ingredients: dict[str, str] = {}
    """The inputs that decide the engine's bytes, by name: same ingredients, same engine."""
    network: NetworkDigests | None = None
    refitted: Refitted | None = None
    choice: Choice | None = None


class PackageDetails(Details):
    """Details of an engine packaged for a server."""

    server: str
    version: int
    engine: str
    notes: tuple[str, ...] = ()


class BaseManifest(BaseModel):
    """Where an artefact came from: the command that makes it again, digests of it and its parents, versions, device.

    `beside` holds files that belong to the artefact and lie in its folder (weights kept outside).
    `seal` proves that this user made it: see `sesurgery.trust`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    schema_version: Literal[1, 2] = 1
    kind: str
    name: str
    file: Place
    sha256: str
    command: str
    created: str
    spec_digest: str | None = None
    plan_digest: str | None = None
    parents: tuple[Parent, ...] = ()
    beside: tuple[Parent, ...] = ()
    versions: dict[str, str]
    device: str
    details: Details
    seal: str | None = None

    @property
    def made_here(self) -> bool:
        """Whether this user made it on this machine, proved by the seal."""
        return trust.holds(self.sealed_text(), self.seal)

    def sealed_text(self) -> str:
        """The manifest's content without the seal: the same text before writing and after reading."""
        # Via JSON, where some values (infinity) have another form.
        return json.dumps(json.loads(self.model_dump_json(exclude={"seal"}, exclude_unset=True)), sort_keys=True)

    def parent_files(self, artifact: Path) -> dict[Path, str]:
        """The files that `artifact`, whose manifest this is, was made from, each with its digest."""
        return {self.locate(artifact, parent.path): parent.sha256 for parent in self.parents}

    def locate(self, artifact: Path, path: str) -> Path:
        """A path in the manifest of `artifact`, resolved from the current folder."""
        if self.schema_version == 1:
            return Path(path)
        # Not resolved: a folder of the workspace may be a link to another disk, whose parent is elsewhere.
        return Path(os.path.normpath(artifact.parent / path))


class RunManifest(BaseManifest):
    """The manifest of a run, which is that of its weights."""

    kind: Literal["run"] = "run"
    details: RunDetails

    def is_of(self, spec: Spec) -> bool:
        """Whether the run was made of this spec: by its digest, or letter by letter.

        Earlier versions had every default in the digest, those of their own options alone (decision 0018).
        """
        return self.spec_digest == spec.digest or digest_text(spec.text()) in {file.sha256 for file in self.parents}

    def spec_file(self, artifact: Path) -> Path | None:
        """The file of the spec that the run was made from, wherever it is now; None if it came from no file."""
        return None if self.details.spec is None else self.locate(artifact, self.details.spec)


class OnnxManifest(BaseManifest):
    """The manifest of an ONNX file."""

    kind: Literal["onnx"] = "onnx"
    details: OnnxDetails

    def run_named(self, artifact: Path) -> Path | None:
        """The run it names; `workspace.run_folder` checks whether that folder may be used."""
        return self.locate(artifact, self.details.run) if self.details.run else None


class EngineManifest(BaseManifest):
    """The manifest of an engine."""

    kind: Literal["engine"] = "engine"
    details: EngineDetails

    def run_named(self, artifact: Path) -> Path | None:
        """The run it names, as for an ONNX file."""
        return self.locate(artifact, self.details.run) if self.details.run else None

    def onnx_file(self, artifact: Path) -> Path:
        """The ONNX file of the engine's network, before lowering."""
        return self.locate(artifact, self.details.onnx)


class PackageManifest(BaseManifest):
    """The manifest of an engine packaged for a server. Version 1 called it an engine."""

    kind: Literal["package", "engine"] = "package"
    details: PackageDetails


class ReportManifest(BaseManifest):
    """The manifest of a report."""

    kind: Literal["report"] = "report"
    details: Details = Details()


def _kind(given: object) -> str | None:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    details = given.get("details") if isinstance(given, dict) else None
    # Version 1 called a package an engine.
    return "package" if kind == "engine" and isinstance(details, dict) and "server" in details else kind


Manifest = Annotated[
    Annotated[RunManifest, Tag("run")]
    | Annotated[OnnxManifest, Tag("onnx")]
    | Annotated[EngineManifest, Tag("engine")]
    | Annotated[PackageManifest, Tag("package")]
    | Annotated[ReportManifest, Tag("report")],
    Discriminator(_kind),
]
ADAPTER: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def relative(path: Path | str, artifact: Path) -> str:
    """A path as stored in a manifest of `artifact`."""
    return Path(os.path.relpath(path, artifact.parent)).as_posix()
