"""The answer of a study as text, Markdown, JSON and a page for a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sesurgery.reports.wording import change, count, markdown, markdown_table, milliseconds, plural
from sesurgery.studies.answer import Answer, Row, Share, Timing, timed
from sesurgery.studies.cells import Cell
from sesurgery.studies.statistics import Difference, Interval
from sesurgery.tables import aligned

HEADER = (
    *("cell", "trials", "top-1 %", "interval", "against plain", "interval", ""),
    *("params", "MACs", "latency ms", "time against plain"),
)


def to_text(answer: Answer) -> str:
    """The table, the front and the advice for a terminal."""
    lines = aligned([HEADER, *table(answer)])
    return "\n".join([*lines, "", *(f"note: {note}" for note in notes(answer)), answer.advice])


def to_markdown(answer: Answer) -> str:
    """The same for a page of documentation."""
    lines = [f"# {markdown(answer.name)}", "", markdown(answer.advice), ""]
    lines += [*markdown_table(HEADER, table(answer)), ""]
    lines += [f"- {markdown(note)}" for note in notes(answer)]
    return "\n".join(lines) + "\n"


def to_html(answer: Answer) -> str:
    """One page that loads nothing, with the plots."""
    from sesurgery.reports.pages.page import environment
    from sesurgery.reports.plots import study as study_plots

    return (
        environment()
        .get_template("study.html")
        .render(answer=answer, header=HEADER, rows=table(answer), notes=notes(answer), plots=study_plots.plots(answer))
    )


def to_json(answer: Answer) -> dict[str, Any]:
    """What `study --json` promises to other programs."""
    return {
        "name": answer.name,
        "axes": dict(answer.axes),
        "seeds": list(answer.seeds),
        "cells": [_cell(row) for row in answer.rows],
        "pareto": list(answer.pareto),
        "recommended": answer.taken,
        "advice": answer.advice,
        "confidence": answer.confidence,
        "correction": "Holm",
        "doubt": answer.doubt,
    }


def from_json(found: Mapping[str, Any]) -> Answer:
    """The answer that `to_json` wrote; KeyError for another form."""
    return Answer(
        found["name"],
        found["axes"],
        tuple(found["seeds"]),
        tuple(_row(cell) for cell in found["cells"]),
        tuple(found["pareto"]),
        found["recommended"],
        found["advice"],
        found["confidence"],
        found.get("doubt"),
    )


def table(answer: Answer) -> list[tuple[str, ...]]:
    """A row a cell, in the columns of `HEADER`."""
    return [
        (
            f"{row.cell}{' *' * (index in answer.pareto)}",
            str(row.trials) + (f" ({len(row.failures)} failed)" if row.failures else ""),
            f"{100 * row.top1.mean:.2f}" if row.top1 else "",
            _interval(row.top1),
            f"{100 * row.against_plain.difference:+.2f}" if row.against_plain else "",
            _interval(row.against_plain, sign="+"),
            verdict(row.against_plain),
            "" if row.params is None else count(row.params),
            "" if row.macs is None else count(row.macs),
            "" if row.latency is None else _latency(row.latency),
            "" if row.latency is None or row.latency.tax is None else _tax(row.latency.tax),
        )
        for index, row in enumerate(answer.rows)
    ]


def notes(answer: Answer) -> list[str]:
    """How to read the table, and why trials are missing from it."""
    compared = sum(row.against_plain is not None for row in answer.rows)
    level = f"{100 * answer.confidence:g} %"
    found = [
        f"top-1 is of the held-out samples, in percent; differences are in points; intervals are for {level}",
        f"differences are corrected for {plural(compared, 'comparison')} by Holm's procedure; "
        "all cells share one estimate of the noise",
        "* is on the Pareto front of accuracy and cost",
    ]
    raced = sum(row.latency is not None for row in answer.rows)
    if raced:
        found.append(
            "latency is of the engine of a cell's first seed; all of them ran in turn in one race, so what they take "
            "against the plain network's is paired"
        )
    if answer.doubt:
        found.append(f"the race is {answer.doubt}")
    if raced and not timed(answer.rows):
        found.append(f"cost is MACs: latency is known of {raced} of {len(answer.rows)} cells alone")
    return found + [f"{row.cell}: {why}" for row in answer.rows for why in row.failures]


def verdict(difference: Difference | None) -> str:
    """What a comparison came to, in words."""
    if difference is None:
        return ""
    if difference.p is None:
        return "one seed tells nothing"
    if difference.significant:
        return f"{'better' if difference.difference > 0 else 'worse'} (p={difference.p:.2g})"
    needed = difference.more_seeds
    more = f"{needed} more seed{'s' * (needed > 1)}" if needed else "no number of seeds is worth it"
    return f"not told apart; {more}"


def _interval(found: Interval | Difference | None, sign: str = "") -> str:
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{100 * found.low:{sign}.2f} to {100 * found.high:{sign}.2f}"


def _latency(found: Timing) -> str:
    ends = (milliseconds(end, found.median) for end in (found.low, found.high))
    return f"{milliseconds(found.median)} ({' to '.join(ends)})"


def _tax(found: Share) -> str:
    return f"{change(found.value)} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _cell(row: Row) -> dict[str, Any]:
    return {
        "where": dict(row.cell.where),
        "plain": row.cell.plain,
        "trials": row.trials,
        "failed": len(row.failures),
        "failures": list(row.failures),
        "top1": _numbers(row.top1, ("mean", "low", "high")),
        "against_plain": _numbers(
            row.against_plain, ("difference", "low", "high", "p", "significant", "seeds", "more_seeds")
        ),
        "params": row.params,
        "macs": row.macs,
        "latency": _numbers(row.latency, ("median", "low", "high")),
        "tax": _numbers(row.latency and row.latency.tax, ("value", "low", "high")),
        "curve": list(row.curve),
    }


def _row(cell: Mapping[str, Any]) -> Row:
    latency, tax = cell["latency"], cell.get("tax")
    return Row(
        Cell(cell["where"], cell["plain"]),
        cell["trials"],
        tuple(cell["failures"]),
        cell["top1"] and Interval(**cell["top1"]),
        cell["against_plain"] and Difference(**cell["against_plain"]),
        cell["params"],
        cell["macs"],
        latency and Timing(**latency, tax=tax and Share(**tax)),
        tuple(cell.get("curve", ())),
    )


def _numbers(record: object | None, names: Sequence[str]) -> dict[str, Any] | None:
    return None if record is None else {name: getattr(record, name) for name in names}
