"""How engines compare with the trained model, as printed text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from sesurgery.reports.model import EngineSection
from sesurgery.reports.wording import fields, markdown, markdown_table, percent, small, text_table
from sesurgery.verification.parity import BatchParity

HEADER = (
    "engine",
    "batch",
    "samples",
    "top-1",
    "model",
    "agreement",
    "max error",
    "mean error",
    "min cosine",
    "verdict",
)


def to_text(engines: Sequence[EngineSection]) -> str:
    """One aligned line an engine and batch size, then every failure and every engine that was not compared."""
    rows = table(engines)
    return "\n".join((text_table([HEADER, *rows]) if rows else []) + remarks(engines)) + "\n"


def to_markdown(engines: Sequence[EngineSection]) -> str:
    """The same as a Markdown table and a list."""
    rows = table(engines)
    lines = [*markdown_table(HEADER, rows), ""] if rows else []
    return "\n".join([*lines, *(f"- {markdown(remark)}" for remark in remarks(engines))]).rstrip() + "\n"


def to_json(engine: EngineSection) -> dict[str, object]:
    """An engine with its comparisons as plain JSON data, without the errors of every sample."""
    return fields(engine) | {
        "passed": engine.passed,
        "parity": [_entry(entry) for entry in engine.parity],
        "kept_fp32": [str(reason) for reason in engine.kept_fp32],
    }


def table(engines: Sequence[EngineSection]) -> list[list[str]]:
    """One row of `HEADER` for each engine and batch size compared."""
    return [
        [
            engine.name,
            str(entry.batch),
            str(entry.report.samples),
            percent(entry.report.candidate_top1),
            percent(entry.report.reference_top1),
            percent(entry.report.agreement),
            small(entry.report.max_abs),
            small(entry.report.mean_abs),
            f"{entry.report.min_cosine:.6f}",
            "passed" if entry.report.passed else "FAILED",
        ]
        for engine in engines
        for entry in engine.parity
    ]


def remarks(engines: Sequence[EngineSection]) -> list[str]:
    """What the table cannot say: each criterion missed, and why an engine was not compared."""
    lines = []
    for engine in engines:
        for entry in engine.parity:
            lines += [f"{engine.name}, batch {entry.batch}: {failure}" for failure in entry.report.failures]
        lines += [f"{engine.name}: not verified at {why}" for why in engine.unverified]
        if not engine.parity and not engine.unverified:
            lines.append(f"{engine.name}: not verified, {engine.not_verified or 'no reason was given'}")
    return lines


def _entry(entry: BatchParity) -> dict[str, object]:
    kept = {key: value for key, value in fields(entry.report).items() if key not in ("sample_errors", "sample_margins")}
    return {
        "batch": entry.batch,
        "passed": entry.report.passed,
        "failures": list(entry.report.failures),
        **kept,
        "smallest_margin": min(entry.report.sample_margins),
    }
