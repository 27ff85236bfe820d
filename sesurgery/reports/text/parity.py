"""How engines compare with the trained model, as printed text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from sesurgery.reports.model import EngineSection
from sesurgery.reports.text import drift
from sesurgery.reports.wording import fields, markdown, markdown_table, percent, plain, plural, small
from sesurgery.tables import aligned
from sesurgery.verification.answers import Answers
from sesurgery.verification.parity import BatchParity, ParityReport
from sesurgery.verification.proportions import Share

HEADER = (
    "engine",
    "batch",
    "samples",
    "top-1",
    "model",
    "agreement",
    "95 % interval",
    "max error",
    "p99 error",
    "mean error",
    "max KL",
    "min cosine",
    "verdict",
)


def to_text(engines: Sequence[EngineSection]) -> str:
    """One aligned line an engine and batch size, then every failure and every engine that was not compared."""
    rows = table(engines)
    return "\n".join((aligned([HEADER, *rows]) if rows else []) + remarks(engines)) + "\n"


def to_markdown(engines: Sequence[EngineSection]) -> str:
    """The same as a Markdown table and a list."""
    rows = table(engines)
    lines = [*markdown_table(HEADER, rows), ""] if rows else []
    for header, more in ((SHARES, shares(engines)), (PROBES, probes(engines))):
        lines += [*markdown_table(header, more), ""] if more else []
    return "\n".join([*lines, *(f"- {markdown(remark)}" for remark in remarks(engines))]).rstrip() + "\n"


def to_json(engine: EngineSection) -> dict[str, object]:
    """An engine with its comparisons as plain JSON data, without the errors of every sample."""
    entries = [_entry(entry) for entry in engine.parity]
    return fields(engine) | {
        "engine": engine.file,
        "verdict": {True: "passed", False: "failed", None: "not verified"}[engine.passed],
        "batches": entries,
        "drift": {
            "first_site": (engine.diagnosis and engine.diagnosis.site) or (engine.drift and engine.drift.first_site),
            "kind": engine.diagnosis and engine.diagnosis.kind,
            "repair": next((fields(each) for each in engine.repairs if each.worked), None),
        },
        "growth": plain(engine.drift),
        "passed": engine.passed,
        "parity": entries,
        # Pictures are for the page.
        "flipped": [{key: value for key, value in fields(each).items() if key != "png"} for each in engine.flipped],
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
            interval(entry.report.answers.agreement if entry.report.answers else None),
            small(entry.report.max_abs),
            _measured(entry.report.p99_abs),
            small(entry.report.mean_abs),
            _measured(entry.report.max_kl),
            f"{entry.report.min_cosine:.6f}",
            "passed" if entry.report.passed else "FAILED",
        ]
        for engine in engines
        for entry in engine.parity
    ]


SHARES = ("engine", "batch", "what", "hits", "share", "95 % interval")


def shares(engines: Sequence[EngineSection]) -> list[list[str]]:
    """One row of `SHARES` for every share of every comparison, and McNemar's test as the last of each."""
    return [[engine.name, str(entry.batch), *row] for engine in engines for entry in engine.parity
            for row in _shares(entry.report.answers)]  # fmt: skip


def _shares(answers: Answers | None) -> list[list[str]]:
    if answers is None:
        return []
    named = {
        "same class as the model": answers.agreement,
        "top-1, model": answers.reference_top1,
        "top-1, engine": answers.candidate_top1,
        "top-5, model": answers.reference_top5,
        "top-5, engine": answers.candidate_top5,
    }
    rows = [
        [what, f"{found.hits} of {found.samples}", percent(found.value), interval(found)]
        for what, found in named.items()
    ]
    if (bounds := answers.top5_overlap_interval) is not None:
        samples = plural(answers.agreement.samples, "sample")
        rows.append(["top-5 in common", f"mean of {samples}", percent(answers.top5_overlap), _between(*bounds)])
    test = answers.mcnemar
    alone = f"{test.first_only} model, {test.second_only} engine"
    return [*rows, ["right alone, McNemar's exact test", alone, f"p = {test.p:.2g}", ""]]


PROBES = (
    "engine",
    "inputs",
    "samples",
    "batch",
    "same class",
    "95 % interval",
    "largest error, relative",
    "asked",
    "verdict",
)


def probes(engines: Sequence[EngineSection]) -> list[list[str]]:
    """One row of `PROBES` for each kind of made-up input."""
    return [
        [
            engine.name,
            probe.name,
            str(probe.samples),
            str(probe.batch),
            percent(probe.agreement),
            interval(probe.same_class),
            small(probe.max_relative),
            "nothing" if probe.allowed is None else f"<= {probe.allowed:g}",
            "-" if probe.allowed is None else "passed" if probe.passed else "FAILED",
        ]
        for engine in engines
        for probe in engine.probes
    ]


def interval(found: Share | None) -> str:
    """`98.9 % to 100 %`; a dash where there is no share."""
    return "-" if found is None else _between(found.low, found.high)


def _between(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"


def _measured(number: float | None) -> str:
    """What an earlier version did not measure is not zero."""
    return "-" if number is None else small(number)


def remarks(engines: Sequence[EngineSection]) -> list[str]:
    """What the table cannot say: each criterion missed, and why an engine was not compared."""
    lines = []
    for engine in engines:
        for entry in engine.parity:
            lines += [f"{engine.name}, batch {entry.batch}: {failure}" for failure in entry.report.failures]
        lines += [
            f"{engine.name}, batch {probe.batch}: {probe.failure}"
            for probe in engine.probes
            if probe.failure is not None
        ]
        # Of an engine that was not compared, the reason below says the same.
        if engine.diagnosis is not None and engine.parity:
            lines.append(f"{engine.name}: {engine.diagnosis}; {engine.diagnosis.remedy}")
        # That an engine is right everywhere is nothing to warn of.
        if engine.drift is not None and (engine.drift.first is not None or engine.repairs):
            lines += [f"{engine.name}: {finding}" for finding in drift.findings(engine)]
        lines += [f"{engine.name}: not verified at {why}" for why in engine.unverified]
        if not engine.parity and not engine.unverified:
            lines.append(f"{engine.name}: not verified, {engine.not_verified or 'no reason was given'}")
    return lines


def _entry(entry: BatchParity) -> dict[str, object]:
    return {"batch": entry.batch, **report_fields(entry.report)}


def report_fields(report: ParityReport) -> dict[str, object]:
    """A comparison as plain JSON data, without the errors of every sample."""
    kept = {key: value for key, value in fields(report).items() if key not in ("sample_errors", "sample_margins")}
    margin = min(report.sample_margins)
    return {"passed": report.passed, "failures": list(report.failures), **kept, "smallest_margin": margin}
