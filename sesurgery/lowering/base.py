"""The contract of a lowering pass: rewrite an ONNX model, keep its function, give a reason for each refusal."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from sesurgery.diagnostics import SesurgeryError, described, fail
from sesurgery.reasons import Reason

if TYPE_CHECKING:
    import onnx

    from sesurgery.onnxgraph import numerics as _numerics

DEFECT = "this is a bug in the pass: leave it out and report it"


@dataclass(frozen=True)
class Edit:
    """One place that a pass changed (`changed`), or left alone, with the reason (not `changed`).

    `kind` and `figure` are those of the `Reason`; the default kind is the pass's name. `nodes` are the nodes that
    `where` names, if there are several.
    """

    where: str
    why: str
    changed: bool
    kind: str = ""
    nodes: tuple[str, ...] = ()
    figure: str = ""

    @property
    def reason(self) -> Reason:
        return Reason(self.kind, self.where, self.why, self.figure)

    def of(self, step: str) -> Edit:
        """The edit with the name of its pass."""
        return self if self.kind else replace(self, kind=step)

    def placed(self, scopes: Mapping[str, str]) -> Edit:
        """The edit with each node's module added, as far as `scopes` knows it."""
        nodes = self.nodes or (self.where,)
        return replace(self, where=one_over_another(*(f"{n} (in {scopes[n]})" if n in scopes else n for n in nodes)))


def one_over_another(*nodes: str) -> str:
    """The place of an edit that concerns two consecutive nodes."""
    return " over ".join(nodes)


@dataclass(frozen=True)
class Lowered:
    """The model after a pass, and the list of what the pass changed and left alone.

    `differences` holds the largest relative difference of the outputs for each verified pass. `notes` are remarks of
    passes that are not exact.
    """

    model: onnx.ModelProto
    edits: tuple[Edit, ...]
    differences: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Pass(ABC):
    """One ONNX -> ONNX rewrite. Subclasses are frozen dataclasses whose fields are the pass's options.

    A second run of a pass changes nothing.
    """

    after: ClassVar[tuple[str, ...]] = ()
    """Names of passes that run before this one if both are requested."""
    tolerance: ClassVar[float]
    """The largest accepted difference of an output in fp32, relative to the output's largest value.

    Graphs that compute in fp16 or bf16 are always allowed a few roundings of that type.
    """
    lossy: ClassVar[str] = ""
    """What to do where a pass that is meant to change outputs changes them by more than it accepts."""
    needs_samples: ClassVar[bool] = False
    """Whether the pass needs samples of the network's input, which `with_samples` sets."""
    samples: Sequence[_numerics.Feeds] = ()
    """The samples that were set; the pass is verified on them instead of on random inputs."""

    def accepted(self) -> float:
        """The largest accepted difference with these options."""
        return self.tolerance

    def requires(self, model: onnx.ModelProto) -> str | None:
        """Why the pass cannot start on this model, or None if it can."""
        return None

    def with_samples(self, samples: Sequence[_numerics.Feeds]) -> Pass:
        """The pass with these samples; a pass that needs none returns itself."""
        return self

    @abstractmethod
    def apply(self, model: onnx.ModelProto) -> Lowered:
        """The rewritten copy; `model` itself stays as it was."""

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        """Which postcondition failed, or None. By default: inputs and outputs keep their names, types and sizes."""
        return changed_ends(before, after)


def name_of(step: Pass) -> str:
    """The pass's name in specs and reports: its class name in snake case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(step).__name__).lower()


def changed_ends(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """Which input or output changed its name, type or fixed size, or None."""
    for kind, was, now in (
        ("input", before.graph.input, after.graph.input),
        ("output", before.graph.output, after.graph.output),
    ):
        if [value.name for value in was] != [value.name for value in now]:
            return f"the {kind}s are {', '.join(value.name for value in now)}, not {', '.join(v.name for v in was)}"
        for old, new in zip(was, now, strict=True):
            # A type that was not declared may be inferred.
            if old.type.tensor_type.elem_type not in (0, new.type.tensor_type.elem_type):
                return f"{kind} {old.name!r} has another type"
            pairs = zip(old.type.tensor_type.shape.dim, new.type.tensor_type.shape.dim, strict=False)
            if any(a.dim_value and b.dim_value and a.dim_value != b.dim_value for a, b in pairs):
                return f"{kind} {old.name!r} has another size"
    return None


def run(model: onnx.ModelProto, passes: Sequence[Pass], *, verify: bool | Sequence[_numerics.Feeds] = False) -> Lowered:
    """Apply passes in order, each between its `requires` and its `ensures`; the result passes the ONNX checker.

    With `verify`, the graphs before and after every pass that changed something are run on random inputs, or on the
    given samples (or the pass's own), and their outputs are compared.
    Raises SE602 if a pass cannot start and SE607 if one breaks its promise.
    """

    from sesurgery.lowering.proof import judge
    from sesurgery.onnxgraph import numerics as _numerics

    edits: list[Edit] = []
    differences: dict[str, float] = {}
    notes: list[str] = []
    fed = [_numerics.feeds(model)] if verify is True else list(verify or ())
    # What a pass made is what the next one starts from: it is computed once for both.
    known: _numerics.Values | None = None
    for step in passes:
        name = name_of(step)
        if (obstacle := step.requires(model)) is not None:
            raise fail("SE602", f"{name} cannot start: {obstacle}")
        lowered = _applied(step, name, model)
        if (broken := step.ensures(model, lowered.model)) is not None:
            raise fail("SE607", f"{name}: {broken}", DEFECT)
        edits.extend(edit.of(name) for edit in lowered.edits)
        notes.extend(lowered.notes)
        before, model = model, _accepted(name, model, lowered.model)
        if fed and any(edit.changed for edit in lowered.edits):
            explained = max(step.accepted(), _numerics.rounding(before))
            given = (step.samples, None) if step.samples else (fed, known)
            found = judge(step, before, model, given[0], explained, given[1])
            known = None if step.samples else found.outputs
            differences[name] = found.difference
            if not found.difference <= explained:
                text = f"it changed an output by {found.difference:.2g} of its largest value"
                limit = f"{explained:.2g} is accepted" if step.lossy else f"rounding explains {explained:.2g}"
                raise fail("SE607", f"{name}: {text}, {limit}", step.lossy or DEFECT)
            if found.exact:
                notes.append(f"{name}: rounding in float32 is amplified here; its arithmetic was proved in float64")
    return Lowered(model, tuple(edits), differences, tuple(notes))


def _accepted(name: str, before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """What a pass made, with sizes of outputs that are computed; raises SE607 if the checker rejects it all the same.

    ONNX Runtime runs files that the checker rejects: what was rejected before is no pass's mistake.
    """
    from sesurgery.onnxgraph.checking import rejection, with_computed_outputs

    # What a pass makes of weights has their type and size; whoever saves the file has them checked.
    if (why := rejection(after, weights=False)) is None or rejection(before, weights=False) is not None:
        return after
    if (mended := with_computed_outputs(after, weights=False)) is None:
        raise fail("SE607", f"{name} left a model that the ONNX checker rejects: {why}")
    return mended


def _applied(step: Pass, name: str, model: onnx.ModelProto) -> Lowered:
    """The result of a pass; raises SE607 if the pass fails on a graph that its `requires` accepted.

    Raises SE602 if ONNX Runtime cannot run that graph either: then the mistake is the file's.
    """
    from sesurgery.onnxgraph import numerics as _numerics

    try:
        return step.apply(model)
    except SesurgeryError:
        raise
    except Exception as error:  # passes and graphs may come from anywhere
        _numerics.runner(model)(_numerics.feeds(model))
        raise fail("SE607", f"{name} cannot handle this graph: {described(error)}", DEFECT) from error


@dataclass(frozen=True)
class Example:
    """A test of a pass: `check` runs it on a small model and asserts what changed and what did not."""

    name: str
    check: Callable[[], None]
