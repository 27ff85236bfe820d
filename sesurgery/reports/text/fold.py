"""What folding blocks into constants costs and brings, as printed text, Markdown and JSON."""

from __future__ import annotations

from sesurgery.reports.text import prices
from sesurgery.reports.text.fold_words import at_most, flips, interval, of, time, time_json, top1
from sesurgery.reports.wording import fields, markdown, markdown_table, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.folding import BlockFold, EngineFold, Folding

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
        f"{of(block.predicted.flips)} (under {percent(block.predicted.flips.high, 2)})",
        at_most(block.predicted),
        "" if block.measured is None else of(block.measured),
        *([] if block.time is None else [interval(block.time)]),
    ]


def _engine(folding: Folding, found: EngineFold) -> list[str]:
    more = (
        f", with {plural(found.others, 'gate')} outside our blocks, which no prediction knows" if found.others else ""
    )
    return [
        f"{plural(len(found.blocks), 'block')} folded in an engine of {folding.backend} {folding.precision}{more}",
        flips(found.predicted, found.measured),
        top1(found.top1, found.difference, found.mcnemar),
        *_time(folding, found),
    ]


def _time(folding: Folding, found: EngineFold) -> list[str]:
    foreseen, measured = found.time, time(found.latency, folding.batch)
    if foreseen is None:
        return [measured, NOT_ASKED]
    held = (
        "the two agree within their errors"
        if found.time_as_predicted
        else "the two DIFFER by more than their errors: constants stay that no weights could take, blocks cost less or "
        "more beside one another, or the machine was not quiet"
    )
    return [measured, f"predicted: {interval(foreseen, foreseen.confidence)}, by the prices of these blocks: {held}"]


def _taking(folding: Folding, run: str) -> list[str]:
    return [
        "to take it, in the spec:",
        "  export:",
        f"    lowering: [{', '.join(folding.lowering)}]",
        f"then: sesurgery apply SPEC --weights {run} && sesurgery build-engine",
    ]


def to_json(folding: Folding) -> dict[str, object]:
    """The same as plain data; `change` is what to write into the spec."""
    told = {key: value for key, value in fields(folding).items() if key not in ("of", "lowering")}
    engine = None
    if (found := folding.engine) is not None:
        engine = {
            **fields(found),
            "latency": time_json(found.latency, folding.batch),
            "as_predicted": found.as_predicted,
            "time_as_predicted": found.time_as_predicted,
        }
    told["prices"] = None if folding.prices is None else prices.to_json(folding.prices)
    return {**told, "engine": engine, "change": {"export": {"lowering": list(folding.lowering)}} if engine else None}
