"""The verb `lower`: the lowering passes of a backend, on any ONNX file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from sesurgery.backends import BACKENDS
from sesurgery.lowering import in_order, load
from sesurgery.lowering.base import Edit, Lowered, Pass
from sesurgery.lowering.base import run as run_passes
from sesurgery.lowering.passes.constant_gates import ConstantGates
from sesurgery.lowering.preparing import prepared
from sesurgery.lowering.rewriting import obstacle
from sesurgery.lowering.squeezes import squeezes
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.scopes import of_metadata
from sesurgery.pipeline.build_engine.calibration import OPTION, samples
from sesurgery.pipeline.build_engine.halves import halves
from sesurgery.pipeline.specs import catalogs
from sesurgery.spec.engines import Calibration
from sesurgery.workspace import OnnxDetails, OnnxManifest, Provenance, describe
from sesurgery.workspace.targets import claim


@dataclass(frozen=True)
class LowerRequest:
    """Write `target`: `source` after the passes that pay for a backend, or those named.

    `calibration` holds samples for passes that decide by them (constant_gates, which may be `bound` off). Without
    `force` only a file of ours is written over.
    """

    source: Path
    target: Path
    backend: str
    passes: tuple[str, ...] | None = None
    verify: bool = True
    calibration: Path | None = None
    bound: float | None = None
    force: bool = False
    half: bool = False
    """Whether only that half of the samples decides by which `gates --fold` decides."""

    @property
    def beside(self) -> tuple[Path, ...]:
        """Input files besides the source."""
        return () if self.calibration is None else (self.calibration,)

    @property
    def command(self) -> str:
        """The command line that writes the same file again."""
        words = ["sesurgery", "lower", self.source.as_posix(), "-o", self.target.as_posix(), "--for", self.backend]
        if self.passes is not None:
            words += ["--passes", ",".join(self.passes)]
        if self.calibration is not None:
            words += ["--calibration", self.calibration.as_posix()]
        words += ["--half"] if self.half else []
        if self.bound is not None:
            words += ["--bound", f"{self.bound:g}"]
        # A pass with options has brackets, which are the shell's as well.
        return shlex.join(words)

    def left_out(self, used: tuple[str, ...]) -> tuple[str, ...]:
        """The passes that the backend does not use; empty if passes were named."""
        if self.passes is not None:
            return ()
        return tuple(name for name in catalogs().passes if name not in ("fold_norms", *used))


@dataclass(frozen=True)
class LoweredFile:
    """The file that was written, the passes, what each changed or left alone, and how far the outputs moved.

    `difference` is the largest difference that one pass made to an output, relative to its largest value, on random
    inputs in ONNX Runtime; None if nothing was compared.
    """

    path: Path
    passes: tuple[str, ...]
    edits: dict[str, tuple[Edit, ...]]
    nodes: tuple[int, int]
    difference: float | None
    notes: tuple[str, ...] = ()
    """Notes of passes that are not exact, and of what was done to the file before all passes."""
    gates: int = 0
    """How many gates of attention blocks the file has."""
    left_out: tuple[str, ...] = ()
    """Passes that the backend does not use; empty if passes were named."""

    @property
    def changed(self) -> int:
        """How many places were changed."""
        return sum(edit.changed for edits in self.edits.values() for edit in edits)


def lower(request: LowerRequest) -> LoweredFile:
    """Lower an ONNX file; its function is compared before and after each pass.

    Raises SE405 if the target is the source, a file that it needs, or, without `force`, a file not written here;
    SE402 and SE606 if there are no samples or they do not fit, SE602 if a pass cannot start, SE607 if one
    changes the function.
    """
    source, target = request.source, request.target
    if source.is_file():
        needs = (*onnx_io.files(source), *request.beside)
        claim(target, needs=needs, beside=(onnx_io.data_path(target),), force=request.force)
    names = in_order(BACKENDS.load(request.backend).passes if request.passes is None else request.passes)
    found = onnx_io.load(source)
    start = prepared(found, verify=request.verify)
    gates = len(squeezes(Dataflow(start.model))) if obstacle(start.model) is None else 0
    before = len(found.graph.node)
    lowered, edits = _lowered(request, start.model, names)
    onnx_io.save(lowered.model, target)
    done = LoweredFile(
        target,
        names,
        edits,
        (before, len(lowered.model.graph.node)),
        max(lowered.differences.values(), default=None),
        (*start.notes, *lowered.notes),
        gates,
        request.left_out(names),
    )
    describe(
        target,
        Provenance(
            OnnxManifest,
            target.stem,
            request.command,
            parents=(source, *request.beside),
            beside=onnx_io.beside(target),
            details=OnnxDetails(passes=names, edits=done.changed, difference=done.difference, notes=done.notes),
        ),
    )
    return done


def _lowered(
    request: LowerRequest, model: ModelProto, names: tuple[str, ...]
) -> tuple[Lowered, dict[str, tuple[Edit, ...]]]:
    """A model after passes, and the edits of each pass, placed at the modules that the nodes came from."""
    steps = load(names)
    steps = tuple(_given(step, model, request) for step in steps)
    edits: dict[str, tuple[Edit, ...]] = {}
    differences: dict[str, float] = {}
    notes: list[str] = []
    for name, step in zip(names, steps, strict=True):
        lowered = run_passes(model, [step], verify=request.verify)
        scopes = _scopes(model)
        edits[name] = tuple(edit.placed(scopes) for edit in lowered.edits)
        model = lowered.model
        notes.extend(lowered.notes)
        differences |= lowered.differences
    return Lowered(model, (), differences, tuple(notes)), edits


def _scopes(model: ModelProto) -> dict[str, str]:
    """The module that each node came from, where the file records it besides the node's name."""
    return {node.name: scope for node in model.graph.node if node.name and (scope := of_metadata(node))}


def _given(step: Pass, model: ModelProto, request: LowerRequest) -> Pass:
    """A pass with the samples and the bound it decides by, if it needs them."""
    if request.bound is not None and isinstance(step, ConstantGates):
        step = replace(step, bound=request.bound)
    if request.calibration is None or not step.needs_samples:
        return step
    if request.half:
        return step.with_samples(halves(model, request.calibration, OPTION)[0].feeds)
    found = samples(model, None, Calibration(file=str(request.calibration)))
    return step.with_samples(found[0] if found else ())
