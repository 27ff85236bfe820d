"""The contract of a lowering pass: ONNX in, ONNX out, the function kept, every refusal said."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from sesurgery.diagnostics import fail


@dataclass(frozen=True)
class Edit:
    """One thing a pass changed (`changed`), or looked at and left alone with the reason (not `changed`)."""

    where: str
    why: str
    changed: bool


@dataclass(frozen=True)
class Lowered:
    """The model after a pass, and the list of what the pass did and did not do."""

    model: onnx.ModelProto
    edits: tuple[Edit, ...]


class Pass(ABC):
    """One ONNX -> ONNX rewrite. Subclasses are frozen dataclasses whose fields are the pass's options."""

    def requires(self, model: onnx.ModelProto) -> str | None:
        """Why the pass cannot start on this model, or None where it can."""
        return None

    @abstractmethod
    def apply(self, model: onnx.ModelProto) -> Lowered:
        """The rewritten copy; `model` itself stays as it was."""

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        """What the pass promised and did not keep, or None."""
        return None


def run(model: onnx.ModelProto, passes: Sequence[Pass]) -> Lowered:
    """Apply passes in order, each between its `requires` and its `ensures`; the result passes the ONNX checker.

    Raises SE602 where a pass cannot start and SE607 where one breaks its promise.
    """
    edits: list[Edit] = []
    for step in passes:
        name = type(step).__name__
        if (obstacle := step.requires(model)) is not None:
            raise fail("SE602", f"{name} cannot start: {obstacle}")
        lowered = step.apply(model)
        if (broken := step.ensures(model, lowered.model)) is not None:
            raise fail("SE607", f"{name}: {broken}", "this is a defect of the pass: leave it out and report it")
        try:
            onnx.checker.check_model(lowered.model, full_check=True)
        except Exception as error:
            raise fail("SE607", f"{name} left a model that the ONNX checker rejects: {error}") from error
        model = lowered.model
        edits.extend(lowered.edits)
    return Lowered(model, tuple(edits))


@dataclass(frozen=True)
class Example:
    """A pass proves itself on a small model: `check` runs it and asserts what changed and what did not."""

    name: str
    check: Callable[[], None]
