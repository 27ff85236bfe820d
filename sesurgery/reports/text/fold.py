"""What folding blocks into constants costs and brings, for a terminal and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery.reports.text import prices
from sesurgery.reports.wording import change, fields, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.estimates import Tax
from sesurgery.verification.folding import BlockFold, EngineFold, Prediction, TimePrediction
from sesurgery.verification.proportions import Share

if TYPE_CHECKING:
    from sesurgery.pipeline.gates.fold import FoldResult

HEADER = ["block", "constant within", "folded", "flips in training", "predicted held-out", "measured"]
TIME = "predicted time"
NOT_ASKED = "the predicted gain was not asked for: --price measures what each block costs, which takes minutes"


def to_text(result: FoldResult) -> str:
    """A row a block; what an engine with all that may be folded did; and the spec that folds."""
    lines = [f"folding: a gate may be {result.bound:g} from a constant on {result.deciding}"]
    if result.blocks:
        lines += aligned([header(result), *table(result)])
        of = "others of the training data" if result.apart else "these, for there are no others"
        lines.append(f"flips are counted on {plural(result.counted, 'sample')}, {of}")
    lines += [
        f"{key}: its gate differs over the map, or does not show: no constant stands for it" for key in result.left
    ]
    if result.engine is None:
        return "\n".join([*lines, "no block may be folded"])
    return "\n".join([*lines, *_engine(result, result.engine), *_taking(result)])


def header(result: FoldResult) -> list[str]:
    """The columns; the last one only where prices were asked for."""
    return HEADER if result.prices is None else [*HEADER, TIME]


def table(result: FoldResult) -> list[list[str]]:
    """One row of the header for each block."""
    return [_row(block) for block in result.blocks]


def _row(block: BlockFold) -> list[str]:
    return [
        block.key,
        f"{block.within:.2g}",
        "yes" if block.folded else "no",
        f"{_of(block.predicted.flips)} (under {percent(block.predicted.flips.high, 2)})",
        _at_most(block.predicted),
        "" if block.measured is None else _of(block.measured),
        *([] if block.time is None else [_interval(block.time)]),
    ]


def _engine(result: FoldResult, found: EngineFold) -> list[str]:
    was, now = found.top1
    gap = found.difference
    held = "as predicted" if found.as_predicted else "MORE THAN PREDICTED"
    more = (
        f", with {plural(found.others, 'gate')} outside our blocks, which no prediction knows" if found.others else ""
    )
    lines = [
        f"{plural(len(found.blocks), 'block')} folded in an engine of {result.backend} {result.precision}{more}:",
        f"  answers: {_of(found.measured)} flip, predicted {_at_most(found.predicted)}: {held}",
        f"  top-1: {was:.2%} -> {now:.2%}, {100 * gap.value:+.2f} points ({percent(gap.confidence)} interval "
        f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}; McNemar's p = {found.mcnemar.p:.2g})",
        *(f"  {line}" for line in _time(result, found)),
    ]
    return [*lines, *filter(None, [found.doubt])]


def _time(result: FoldResult, found: EngineFold) -> list[str]:
    tax, foreseen = found.latency, found.time
    nothing = ", which may be nothing" if tax.includes_zero else ""
    measured = f"time: {_interval(tax, tax.confidence)} at batch {result.batch}{nothing}"
    if foreseen is None:
        return [measured, NOT_ASKED]
    held = (
        "the two agree within their errors"
        if found.time_as_predicted
        else "the two DIFFER by more than their errors: constants stay that no weights could take, blocks cost less or "
        "more beside one another, or the machine was not quiet"
    )
    return [measured, f"predicted: {_interval(foreseen, foreseen.confidence)}, by the prices of these blocks: {held}"]


def _interval(time: Tax | TimePrediction, confidence: float | None = None) -> str:
    of = "" if confidence is None else f"{percent(confidence)} interval "
    return f"{change(time.value)} ({of}{change(time.low)} to {change(time.high)})"


def _taking(result: FoldResult) -> list[str]:
    return [
        "to take it, in the spec:",
        "  export:",
        f"    lowering: [{', '.join(result.lowering)}]",
        f"then: sesurgery apply SPEC --weights {result.folder.as_posix()} && sesurgery build-engine",
    ]


def _of(share: Share) -> str:
    return f"{share.hits} of {share.samples}"


def _at_most(predicted: Prediction) -> str:
    return f"at most {predicted.most} of {predicted.held_out}"


def to_json(result: FoldResult) -> dict[str, object]:
    """The same as plain data; `change` is what to write into the spec."""
    told = {key: value for key, value in fields(result).items() if key not in ("folder", "lowering")}
    engine = None
    if (found := result.engine) is not None:
        tax = found.latency
        latency = {"value": tax.value, "low": tax.low, "high": tax.high, "confidence": tax.confidence}
        engine = {
            **fields(found),
            "latency": {**latency, "per": "time", "batch": result.batch},
            "as_predicted": found.as_predicted,
            "time_as_predicted": found.time_as_predicted,
        }
    told["prices"] = None if result.prices is None else prices.to_json(result.prices)
    return {**told, "engine": engine, "change": {"export": {"lowering": list(result.lowering)}} if engine else None}
