"""How engines compare with ONNX files, as printed text and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from sesurgery.reports.text.parity import interval, report_fields
from sesurgery.reports.wording import percent, small
from sesurgery.spec.parity import Tolerance
from sesurgery.tables import aligned
from sesurgery.verification.file_parity import FileParity, OutputParity

HEADER = (
    "engine",
    "output",
    "batch",
    "samples",
    "same class",
    "95 % interval",
    "max error",
    "p99 error",
    "mean error",
    "min cosine",
    "verdict",
)


def to_text(engines: Sequence[tuple[FileParity, Tolerance]]) -> str:
    """One aligned line an engine, output and batch size; then what was compared with what, and every failure."""
    rows = [_row(parity, entry) for parity, _ in engines for entry in parity.entries]
    lines = aligned([HEADER, *rows]) if rows else []
    for parity, tolerance in engines:
        lines.append(f"{parity.engine} against {parity.against}, on {parity.samples}; asked: {_asked(tolerance)}")
        lines += [f"{parity.engine} {failure}" for failure in parity.failures]
        lines += [f"{parity.engine}: not verified at {why}" for why in parity.unverified]
    return "\n".join(lines) + "\n"


def to_json(parity: FileParity) -> dict[str, object]:
    """An engine with its comparisons, under the keys that one of a run has; there is no drift of a file."""
    return {
        "engine": parity.engine,
        "backend": parity.backend,
        "precision": parity.precision,
        "against": parity.against,
        "samples": parity.samples,
        "verdict": {True: "passed", False: "failed", None: "not verified"}[parity.passed],
        "batches": [
            {"batch": entry.batch, "output": entry.output, **report_fields(entry.report)} for entry in parity.entries
        ],
        "unverified": list(parity.unverified),
        "drift": {"first_site": None, "kind": None, "repair": None},
    }


def _row(parity: FileParity, entry: OutputParity) -> list[str]:
    report = entry.report
    classes = any(criterion.name == "min_agreement" for criterion in report.criteria)
    return [
        f"{parity.backend} {parity.precision}",
        entry.output,
        str(entry.batch),
        str(report.samples),
        percent(report.agreement) if classes else "-",
        interval(report.answers.agreement if classes and report.answers else None),
        small(report.max_abs),
        "-" if report.p99_abs is None else small(report.p99_abs),
        small(report.mean_abs),
        f"{report.min_cosine:.6f}",
        "passed" if report.passed else "FAILED",
    ]


def _asked(tolerance: Tolerance) -> str:
    given = tolerance.model_dump(exclude_none=True)
    return ", ".join(f"{name} {value:g}" for name, value in given.items() if not name.endswith("_drop"))
