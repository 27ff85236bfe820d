"""What is said of a folded engine in the same words, whether it is of a run or of an ONNX file."""

from __future__ import annotations

from sesurgery.reports.wording import change, percent
from sesurgery.verification.estimates import Tax
from sesurgery.verification.folding import Prediction, TimePrediction
from sesurgery.verification.paired import Gain, McNemar
from sesurgery.verification.proportions import Share


def of(share: Share) -> str:
    """`3 of 180`."""
    return f"{share.hits} of {share.samples}"


def at_most(predicted: Prediction) -> str:
    """How many held-out answers may flip."""
    return f"at most {predicted.most} of {predicted.held_out}"


def flips(predicted: Prediction, measured: Share) -> str:
    """How many held-out answers flipped, beside how many may."""
    held = "as predicted" if predicted.covers(measured) else "MORE THAN PREDICTED"
    return f"answers: {of(measured)} flip, predicted {at_most(predicted)}: {held}"


def top1(shares: tuple[float, float], gap: Gain, test: McNemar) -> str:
    """Top-1 as it is and folded, and the difference with its interval."""
    was, now = shares
    return (
        f"top-1: {was:.2%} -> {now:.2%}, {100 * gap.value:+.2f} points ({percent(gap.confidence)} interval "
        f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}; McNemar's p = {test.p:.2g})"
    )


def time(found: Tax, batch: int) -> str:
    """What the race of the folded engine against the one as it is found."""
    nothing = ", which may be nothing" if found.includes_zero else ""
    return f"time: {interval(found, found.confidence)} at batch {batch}{nothing}"


def interval(found: Tax | TimePrediction, confidence: float | None = None) -> str:
    """A change of time and its ends, with their confidence where it is given."""
    kind = "" if confidence is None else f"{percent(confidence)} interval "
    return f"{change(found.value)} ({kind}{change(found.low)} to {change(found.high)})"


def time_json(found: Tax, batch: int) -> dict[str, object]:
    """The race as plain data."""
    ends = {"value": found.value, "low": found.low, "high": found.high, "confidence": found.confidence}
    return {**ends, "per": "time", "batch": batch}
