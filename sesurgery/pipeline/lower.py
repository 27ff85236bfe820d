"""The verb `lower`: the lowering passes of a backend, on any ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from sesurgery.backends import BACKENDS
from sesurgery.lowering import in_order, load
from sesurgery.lowering.base import Edit, Pass
from sesurgery.lowering.base import run as run_passes
from sesurgery.lowering.passes.constant_gates import ConstantGates
from sesurgery.lowering.preparing import prepared
from sesurgery.lowering.rewriting import obstacle
from sesurgery.lowering.squeezes import squeezes
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.scopes import of_metadata
from sesurgery.pipeline.calibration import samples
from sesurgery.pipeline.specs import catalogs
from sesurgery.spec.model import Calibration
from sesurgery.workspace import OnnxDetails, OnnxManifest, describe
from sesurgery.workspace.targets import claim


@dataclass(frozen=True)
class LoweredFile:
    """What was written, by which passes, what each did and did not do, and how far the outputs moved.

    `difference` is the largest difference that one pass made to an output, relative to its largest value, on random
    inputs in ONNX Runtime; None where nothing was compared.
    """

    path: Path
    passes: tuple[str, ...]
    edits: dict[str, tuple[Edit, ...]]
    nodes: tuple[int, int]
    difference: float | None
    notes: tuple[str, ...] = ()
    """What passes that are not exact have to say of that, and what was done to the file before all passes."""
    gates: int = 0
    """How many gates of attention blocks the file has."""
    left_out: tuple[str, ...] = ()
    """Passes that the backend does not use; none where passes were named."""

    @property
    def changed(self) -> int:
        """How many places were changed."""
        return sum(edit.changed for edits in self.edits.values() for edit in edits)


def lower(
    source: Path,
    target: Path,
    backend: str,
    passes: tuple[str, ...] | None = None,
    *,
    verify: bool = True,
    calibration: Path | None = None,
    bound: float | None = None,
    force: bool = False,
) -> LoweredFile:
    """Write `target`: `source` after the passes that pay for a backend, or those named; its function is compared.

    `calibration` holds samples for passes that decide by them (constant_gates, which may be `bound` off).
    Raises SE405 where `target` is what `source` needs, itself among it, or, without `force`, somebody else's; SE402 and
    SE606 where there are no samples or they do not fit, SE602 where a pass cannot start, SE607 where one changes the
    function.
    """
    if source.is_file():
        needs = (*onnx_io.files(source), *(() if calibration is None else (calibration,)))
        claim(target, needs=needs, beside=(onnx_io.data_path(target),), force=force)
    names = in_order(BACKENDS.load(backend).passes if passes is None else passes)
    found = onnx_io.load(source)
    start = prepared(found, verify=verify)
    model, notes = start.model, list(start.notes)
    gates = len(squeezes(Dataflow(model))) if obstacle(model) is None else 0
    before = len(found.graph.node)
    edits: dict[str, tuple[Edit, ...]] = {}
    differences: list[float] = []
    steps = load(names)
    if calibration is not None or bound is not None:
        steps = tuple(_given(step, model, calibration, bound) for step in steps)
    for name, step in zip(names, steps, strict=True):
        lowered = run_passes(model, [step], verify=verify)
        scopes = _scopes(model)
        edits[name] = tuple(edit.placed(scopes) for edit in lowered.edits)
        model = lowered.model
        notes.extend(lowered.notes)
        differences.extend(lowered.differences.values())
    onnx_io.save(model, target)
    done = LoweredFile(
        target,
        names,
        edits,
        (before, len(model.graph.node)),
        max(differences, default=None),
        tuple(notes),
        gates,
        () if passes is not None else tuple(name for name in catalogs().passes if name not in ("fold_norms", *names)),
    )
    describe(
        target,
        OnnxManifest,
        target.stem,
        f"sesurgery lower {source.as_posix()} -o {target.as_posix()} --for {backend}"
        + (f" --passes {','.join(passes)}" if passes is not None else "")
        + (f" --calibration {calibration.as_posix()}" if calibration is not None else "")
        + (f" --bound {bound:g}" if bound is not None else ""),
        parents=(source, *(() if calibration is None else (calibration,))),
        beside=onnx_io.beside(target),
        details=OnnxDetails(passes=names, edits=done.changed, difference=done.difference, notes=tuple(notes)),
    )
    return done


def _scopes(model: ModelProto) -> dict[str, str]:
    """The module that each node came from, as far as the file tells otherwise than by the node's name."""
    return {node.name: scope for node in model.graph.node if node.name and (scope := of_metadata(node))}


def _given(step: Pass, model: ModelProto, calibration: Path | None, bound: float | None) -> Pass:
    """A pass with the samples and the bound that it is to decide by, if it does."""
    if bound is not None and isinstance(step, ConstantGates):
        step = replace(step, bound=bound)
    if calibration is None or not step.needs_samples:
        return step
    found = samples(model, None, Calibration(file=str(calibration)))
    return step.with_samples(found[0] if found else ())
