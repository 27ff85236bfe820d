"""Samples whose answer changed, as rows; their pictures are for the page."""

from __future__ import annotations

from collections.abc import Sequence

from sesurgery.reports.wording import percent
from sesurgery.verification.flips import FlippedSample

HEADER = ("sample", "label", "model", "engine")


def table(flipped: Sequence[FlippedSample]) -> list[list[str]]:
    """One row of `HEADER` for each: its position, its label, and what both answer, with how sure each is."""
    return [
        [str(each.index), each.label, f"{each.expected} {percent(each.expected_share)}", _answer(each)]
        for each in flipped
    ]


def _answer(each: FlippedSample) -> str:
    return "NaN or infinity" if each.answer is None else f"{each.answer} {percent(each.answer_share)}"
