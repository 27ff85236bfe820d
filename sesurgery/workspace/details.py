"""What a manifest says of its kind of artefact: the fields under `details`.

Every path is relative to the folder that the artefact lies in. Unknown keys are kept: a later version may have written
them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sesurgery.reasons import Reason

_LONGEST_PATH, _LONGEST_NAME = 4096, 255


def _place(text: str) -> str:
    if "\0" in text or len(text) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in text.split("/")):
        raise ValueError("a path that no file can have")
    return text


Place = Annotated[str, AfterValidator(_place)]
"""A path, as far as it can be one."""
BatchSize = Annotated[int, Field(gt=0, le=65536)]
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

    min: BatchSize
    opt: BatchSize
    max: BatchSize


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


class StudyDetails(Details):
    """Details of a study's answer: the paths of its axes, its seeds, and the trials that the answer rests on."""

    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: int
    trials: int
    failed: int


class PackageDetails(Details):
    """Details of an engine packaged for a server."""

    server: str
    version: int
    engine: str
    notes: tuple[str, ...] = ()
