"""What folding blocks into constants costs and brings, for a terminal and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery.reports.wording import change, fields, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.folding import BlockFold, EngineFold, Prediction
from sesurgery.verification.proportions import Share

if TYPE_CHECKING:
    from sesurgery.pipeline.gates.fold import FoldResult

HEADER = ["block", "constant within", "folded", "flips in training", "predicted held-out", "measured"]


def to_text(result: FoldResult) -> str:
    """A row a block; what an engine with all of them folded did; and the spec that folds."""
    lines = [f"folding: a gate may be {result.bound:g} from a constant on {result.deciding}"]
    if result.blocks:
        lines += aligned([HEADER, *(_row(block) for block in result.blocks)])
        of = "others of the training data" if result.apart else "these, for there are no others"
        lines.append(f"flips are counted on {plural(result.counted, 'sample')}, {of}")
    lines += [
        f"{key}: its gate differs over the map, or does not show: no constant stands for it" for key in result.left
    ]
    if result.engine is None:
        return "\n".join([*lines, "no block may be folded"])
    return "\n".join([*lines, *_engine(result, result.engine), *_taking(result)])


def _row(block: BlockFold) -> list[str]:
    return [
        block.key,
        f"{block.within:.2g}",
        "yes" if block.folded else "no",
        f"{_of(block.predicted.flips)} (under {percent(block.predicted.flips.high, 2)})",
        _at_most(block.predicted),
        "" if block.measured is None else _of(block.measured),
    ]


def _engine(result: FoldResult, found: EngineFold) -> list[str]:
    was, now = found.top1
    gap, tax = found.difference, found.latency
    held = "as predicted" if found.as_predicted else "MORE THAN PREDICTED"
    more = (
        f", with {plural(found.others, 'gate')} outside our blocks, which no prediction knows" if found.others else ""
    )
    lines = [
        f"{plural(len(found.blocks), 'block')} folded in an engine of {result.backend} {result.precision}{more}:",
        f"  answers: {_of(found.measured)} flip, predicted {_at_most(found.predicted)}: {held}",
        f"  top-1: {was:.2%} -> {now:.2%}, {100 * gap.value:+.2f} points ({percent(gap.confidence)} interval "
        f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}; McNemar's p = {found.mcnemar.p:.2g})",
        f"  time: {change(tax.value)} ({percent(tax.confidence)} interval {change(tax.low)} to {change(tax.high)}) "
        f"at batch {result.batch}" + (", which may be nothing" if tax.includes_zero else ""),
    ]
    return [*lines, *filter(None, [found.doubt])]


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
        latency = {"value": tax.value, "low": tax.low, "high": tax.high, "per": "time", "batch": result.batch}
        engine = {**fields(found), "latency": latency, "as_predicted": found.as_predicted}
    return {**told, "engine": engine, "change": {"export": {"lowering": list(result.lowering)}} if engine else None}
