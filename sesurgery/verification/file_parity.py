"""Does an engine answer like an ONNX file? Every output, batch size by batch size, on samples that have no labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import fail
from sesurgery.spec.parity import Tolerance
from sesurgery.verification.parity import ParityReport, compare

LABELLED = ("max_top1_drop", "max_top5_drop")
"""What can only be asked where the right answers are known."""


@dataclass(frozen=True)
class OutputParity:
    """One output of an engine beside the file's at one batch size; a sample's values count as its logits."""

    output: str
    batch: int
    report: ParityReport


@dataclass(frozen=True)
class FileParity:
    """An engine beside an ONNX file. `samples` says in words what both were run on.

    `unverified` are the batch sizes at which it could not be compared, each as "batch N: reason".
    """

    engine: str
    backend: str
    precision: str
    against: str
    samples: str
    entries: tuple[OutputParity, ...]
    unverified: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Every criterion that was not met, with its batch size and output."""
        return tuple(
            f"at batch {entry.batch}, output {entry.output!r}: {failure}"
            for entry in self.entries
            for failure in entry.report.failures
        )

    @property
    def passed(self) -> bool | None:
        """Whether every criterion was met; None where it was not compared at every size."""
        if self.failures:
            return False
        return True if self.entries and not self.unverified else None


def infer_all(runner: Runner, feeds: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Every output over all samples of `feeds`, `batch` at a time; of one input, whatever its name is.

    Raises SE606 where the feeds are not those of the inputs.
    """
    named = dict(feeds)
    if len(runner.inputs) == len(feeds) == 1:
        named = {runner.inputs[0].name: next(iter(feeds.values()))}
    if missing := [info.name for info in runner.inputs if info.name not in named]:
        raise fail("SE606", f"there are no samples for {', '.join(missing)}; there are some for {', '.join(feeds)}")
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(next(iter(named.values()))), batch):
        piece = {
            info.name: np.ascontiguousarray(named[info.name][start : start + batch], info.dtype)
            for info in runner.inputs
        }
        for name, array in runner.infer(piece).items():
            # A runner may hand out the same buffer on every call.
            parts.setdefault(name, []).append(np.array(np.atleast_1d(array)))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def compare_outputs(
    expected: Mapping[str, Array], found: Mapping[str, Array], batch: int, tolerance: Tolerance
) -> tuple[OutputParity, ...]:
    """Compare each output [N, ...] of a file with an engine's; of one output each, whatever their names are.

    Criteria that need labels are not asked. Raises SE606 where the outputs are not the same ones or the file's are not
    finite, SE102 where nothing is left to ask.
    """
    given = dict(found)
    if len(expected) == len(found) == 1:
        given = {next(iter(expected)): next(iter(found.values()))}
    if set(expected) != set(given):
        text = f"the engine's outputs are {', '.join(found)}; the file's are {', '.join(expected)}"
        raise fail("SE606", text, "compare an engine with a file of the same network")
    return tuple(
        OutputParity(name, batch, _compared(name, array, given[name], tolerance)) for name, array in expected.items()
    )


def _compared(name: str, expected: Array, found: Array, tolerance: Tolerance) -> ParityReport:
    if expected.shape != found.shape:
        shapes = f"{list(found.shape)} from the engine and {list(expected.shape)} from the file"
        raise fail("SE606", f"output {name!r} has the shape {shapes}", "compare it with a file of the same network")
    rows, others = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    asked = tolerance.model_copy(update=dict.fromkeys(LABELLED))
    if expected.ndim != 2 and asked.model_dump(exclude_none=True).keys() - {"min_agreement", "max_relative"}:
        # Of a map it would say where its largest value lies, which is only better than nothing.
        asked = asked.model_copy(update={"min_agreement": None})
    return compare(rows, others, rows.argmax(axis=1), asked)
