"""What folding blocks into constants costs and brings, as printed text, Markdown and JSON."""

from __future__ import annotations

from sesurgery.reports.text import prices
from sesurgery.reports.wording import change, fields, markdown, markdown_table, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.estimates import Tax
from sesurgery.verification.folding import BlockFold, EngineFold, Folding, Prediction, TimePrediction
from sesurgery.verification.proportions import Share

HEADER = ["block", "constant within", "folded", "flips in training", "predicted held-out", "measured"]
TIME = "predicted time"
NOT_ASKED = "the predicted gain was not asked for: --price measures what each block costs, which takes minutes"
NOTHING = "no block may be folded"


def to_text(folding: Folding, run: str) -> str:
    """A row a block; what an engine with all that may be folded did; and the spec that folds."""
    lines = [*_deciding(folding), *(aligned([header(folding), *table(folding)]) if folding.blocks else [])]
    lines += _counted(folding)
    if folding.engine is None:
        return "\n".join([*lines, NOTHING])
    said = _engine(folding, folding.engine)
    lines += [f"{said[0]}:", *(f"  {line}" for line in said[1:]), *_doubt(folding)]
    return "\n".join([*lines, *_taking(folding, run)])


def to_markdown(folding: Folding) -> str:
    """The same as a Markdown table and sentences."""
    lines = [*markdown_table(header(folding), table(folding)), ""] if folding.blocks else []
    return "\n".join([*lines, *(f"{markdown(finding)}.\n" for finding in findings(folding))]).rstrip() + "\n"


def findings(folding: Folding) -> list[str]:
    """What the table cannot say, as sentences without their full stop."""
    told = [NOTHING] if folding.engine is None else _engine(folding, folding.engine)
    return [*_deciding(folding), *_counted(folding), *told, *_doubt(folding)]


def _deciding(folding: Folding) -> list[str]:
    return [f"folding: a gate may be {folding.bound:g} from a constant on {folding.deciding}"]


def _counted(folding: Folding) -> list[str]:
    of = "others of the training data" if folding.apart else "these, for there are no others"
    lines = [f"flips are counted on {plural(folding.counted, 'sample')}, {of}"] if folding.blocks else []
    return lines + [
        f"{key}: its gate differs over the map, or does not show: no constant stands for it" for key in folding.left
    ]


def _doubt(folding: Folding) -> list[str]:
    return [folding.engine.doubt] if folding.engine and folding.engine.doubt else []


def header(folding: Folding) -> list[str]:
    """The columns; the last one only where prices were asked for."""
    return HEADER if folding.prices is None else [*HEADER, TIME]


def table(folding: Folding) -> list[list[str]]:
    """One row of the header for each block."""
    return [_row(block) for block in folding.blocks]


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


def _engine(folding: Folding, found: EngineFold) -> list[str]:
    was, now = found.top1
    gap = found.difference
    held = "as predicted" if found.as_predicted else "MORE THAN PREDICTED"
    more = (
        f", with {plural(found.others, 'gate')} outside our blocks, which no prediction knows" if found.others else ""
    )
    return [
        f"{plural(len(found.blocks), 'block')} folded in an engine of {folding.backend} {folding.precision}{more}",
        f"answers: {_of(found.measured)} flip, predicted {_at_most(found.predicted)}: {held}",
        f"top-1: {was:.2%} -> {now:.2%}, {100 * gap.value:+.2f} points ({percent(gap.confidence)} interval "
        f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}; McNemar's p = {found.mcnemar.p:.2g})",
        *_time(folding, found),
    ]


def _time(folding: Folding, found: EngineFold) -> list[str]:
    tax, foreseen = found.latency, found.time
    nothing = ", which may be nothing" if tax.includes_zero else ""
    measured = f"time: {_interval(tax, tax.confidence)} at batch {folding.batch}{nothing}"
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


def _taking(folding: Folding, run: str) -> list[str]:
    return [
        "to take it, in the spec:",
        "  export:",
        f"    lowering: [{', '.join(folding.lowering)}]",
        f"then: sesurgery apply SPEC --weights {run} && sesurgery build-engine",
    ]


def _of(share: Share) -> str:
    return f"{share.hits} of {share.samples}"


def _at_most(predicted: Prediction) -> str:
    return f"at most {predicted.most} of {predicted.held_out}"


def to_json(folding: Folding) -> dict[str, object]:
    """The same as plain data; `change` is what to write into the spec."""
    told = {key: value for key, value in fields(folding).items() if key not in ("of", "lowering")}
    engine = None
    if (found := folding.engine) is not None:
        tax = found.latency
        latency = {"value": tax.value, "low": tax.low, "high": tax.high, "confidence": tax.confidence}
        engine = {
            **fields(found),
            "latency": {**latency, "per": "time", "batch": folding.batch},
            "as_predicted": found.as_predicted,
            "time_as_predicted": found.time_as_predicted,
        }
    told["prices"] = None if folding.prices is None else prices.to_json(folding.prices)
    return {**told, "engine": engine, "change": {"export": {"lowering": list(folding.lowering)}} if engine else None}
