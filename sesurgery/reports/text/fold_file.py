"""What folding gates of an ONNX file into constants costs and brings, as printed text and JSON."""

from __future__ import annotations

import math

from sesurgery.reports.text.fold_words import flips, of, time, time_json, top1
from sesurgery.reports.wording import fields, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.file_folding import FileEngineFold, FileFolding, Flips

HEADER = ["gate", "constant within", "folded"]
NOTHING = "no gate may be folded"


def to_text(folding: FileFolding) -> str:
    """A row a gate; what an engine with all that may be folded did; and the commands that fold."""
    rows = [[gate.key, f"{gate.within:.2g}", "yes" if gate.folded else "no"] for gate in folding.gates]
    lines = [*_deciding(folding), *(aligned([HEADER, *rows]) if rows else [])]
    lines += [f"{key}: the pass constant_gates does not know it" for key in folding.left]
    if folding.engine is None:
        return "\n".join([*lines, NOTHING])
    engine = f"{folding.backend} {folding.precision}"
    lines.append(f"{plural(folding.folded, 'gate')} folded in an engine of {engine}:")
    lines += [f"  {line}" for line in _engine(folding, folding.engine)]
    lines += [folding.engine.doubt] if folding.engine.doubt else []
    return "\n".join([*lines, "to take it:", *(f"  {command}" for command in folding.commands)])


def _deciding(folding: FileFolding) -> list[str]:
    halves = f"{folding.deciding} samples decide and predict flips, {folding.held_out} others measure them"
    drawn = "drawn at random, half of each label in either" if folding.labelled else "drawn at random"
    return [f"folding: a gate may be {folding.bound:g} from a constant", f"{halves}: {drawn}, always the same"]


def _engine(folding: FileFolding, found: FileEngineFold) -> list[str]:
    told = [f"answers: no flip can be told: {found.why}"] if found.flips is None else _flips(folding, found.flips)
    changed = (
        f"by up to {found.change:.2g} of the largest value of that output"
        if math.isfinite(found.change)
        else "their shapes, or which values are finite"
    )
    return [*told, f"outputs: they change {changed} on {folding.held_out} samples", time(found.latency, found.batch)]


def _flips(folding: FileFolding, found: Flips) -> list[str]:
    what = (
        "the classes of the largest values in the rows"
        if found.answering.sequence
        else "the class of the largest value"
    )
    counted = found.predicted.flips
    lines = [
        flips(found.predicted, found.measured),
        f"of the samples that decide, {of(counted)} flip (under {percent(counted.high, 2)})",
        f"an answer is {what} of output {found.answering.output!r}",
    ]
    if found.scored is not None:
        lines.append(top1(found.scored.top1, found.scored.difference, found.scored.mcnemar))
    elif folding.labelled:
        lines.append("top-1: it is not told, for a label is one class and an answer a sequence of them")
    return lines


def to_json(folding: FileFolding) -> dict[str, object]:
    """The same as plain data; `engine` is null where no gate may be folded."""
    found = folding.engine
    if found is None:
        return fields(folding)
    told = None if found.flips is None else {**fields(found.flips), "as_predicted": found.flips.as_predicted}
    engine = {**fields(found), "flips": told, "latency": time_json(found.latency, found.batch)}
    return {**fields(folding), "engine": engine}
