"""The verb `lower`: the lowering passes of a backend, on any ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import describe
from sesurgery.backends import BACKENDS
from sesurgery.diagnostics import fail
from sesurgery.lowering import in_order, load
from sesurgery.lowering.base import Edit
from sesurgery.lowering.base import run as run_passes
from sesurgery.models import onnx_io


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
) -> LoweredFile:
    """Write `target`: `source` after the passes that pay for a backend, or those named; its function is compared.

    Raises SE405 where `target` is `source`, SE602 where a pass cannot start, SE607 where one changes the function.
    """
    if target.exists() and target.samefile(source):
        raise fail("SE405", f"{target} is the file to be lowered", "name another file with -o")
    names = in_order(BACKENDS.load(backend).passes if passes is None else passes)
    model = onnx_io.load(source)
    before = len(model.graph.node)
    edits: dict[str, tuple[Edit, ...]] = {}
    differences: list[float] = []
    for name, step in zip(names, load(names), strict=True):
        lowered = run_passes(model, [step], verify=verify)
        model, edits[name] = lowered.model, lowered.edits
        differences.extend(lowered.differences.values())
    onnx_io.save(model, target)
    done = LoweredFile(target, names, edits, (before, len(model.graph.node)), max(differences, default=None))
    describe(
        target,
        "onnx",
        target.stem,
        f"sesurgery lower {source.as_posix()} -o {target.as_posix()} --for {backend}"
        + (f" --passes {','.join(passes)}" if passes is not None else ""),
        parents=(source,),
        beside=onnx_io.beside(target),
        details={"passes": list(names), "edits": done.changed, "difference": done.difference},
    )
    return done
