"""What became of a network that was trained on without its needless blocks, for a terminal and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery.reports.text import parity
from sesurgery.reports.text.comparison import TOLD
from sesurgery.reports.wording import fields, percent, plural

if TYPE_CHECKING:
    from sesurgery.pipeline.fine_tune import FineTuneResult

ADVICE = {
    "better": "take it",
    "worse": "the blocks that were left out paid: keep the run as it was",
    "not told apart": "the blocks that were left out did not pay, as far as this tells: take the cheaper one",
}


def to_text(result: FineTuneResult) -> str:
    """Top-1 before, at removal and after, the difference with its test, the verdict, and the parity of its engine."""
    new, old = result.run.as_posix(), result.began_with.as_posix()
    lines = [f"{new} began with the weights of {old}: {result.taken}"]
    at_removal, before = result.removal.top1
    told = f"top-1: {before:.2%} before, {at_removal:.2%} without these blocks"
    found = result.after
    if found is None:
        return "\n".join([*lines, told])
    gap, test = found.difference, found.mcnemar
    return "\n".join(
        [
            *lines,
            f"{told}, {found.top1[0]:.2%} after {plural(result.epochs, 'epoch')}",
            f"difference: {100 * gap.value:+.2f} points ({percent(gap.confidence)} interval {100 * gap.low:+.2f} to "
            f"{100 * gap.high:+.2f}; {found.samples} held-out samples; McNemar's p = {test.p:.2g})",
            f"verdict: {new} {TOLD[found.verdict]} {old}: {ADVICE[found.verdict]}",
            f"note: it was trained for {plural(result.epochs, 'epoch')} more than {old}; what those would have brought "
            "with the blocks is not known",
            *_parity(result),
        ]
    )


def _parity(result: FineTuneResult) -> list[str]:
    verified = result.verified
    if verified is None:
        return [f"parity: no engine was verified: {result.unverified}"]
    name = verified.engine.name
    if verified.failures:
        told = f"{name} FALLS SHORT of the trained network: do not deploy it"
    else:
        told = f"{name} agrees with the trained network, as the spec asks"
    return [f"parity: {told}", *parity.to_text([verified.section]).splitlines()]


def to_json(result: FineTuneResult) -> dict[str, object]:
    """The same as plain data."""
    at_removal, before = result.removal.top1
    after = result.after
    return {
        "run": result.run.as_posix(),
        "began_with": result.began_with.as_posix(),
        "taken": fields(result.taken),
        "epochs": result.epochs,
        "top1": {"before": before, "at_removal": at_removal, "after": after and after.top1[0]},
        "removal": fields(result.removal),
        "after": after and fields(after),
        "verdict": after and after.verdict,
        "parity": None if result.verified is None else parity.to_json(result.verified.section),
        "unverified": result.unverified,
    }
