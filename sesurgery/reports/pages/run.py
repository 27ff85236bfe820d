"""The report of a whole run as a page, as Markdown, as JSON, and as the few lines that end a command."""

from __future__ import annotations

from sesurgery.reports.model import EngineSection, NetworkSection, RunReport, TrainingSection
from sesurgery.reports.pages.summary import summarise
from sesurgery.reports.pages.tables import EPOCHS, convolution_counts, epochs_table, kept_fp32, network_totals
from sesurgery.reports.text import drift, flips, fold, latency, parity, prices
from sesurgery.reports.wording import (
    fields,
    markdown,
    markdown_code,
    markdown_table,
    plain,
    plural,
)
from sesurgery.tables import aligned


def to_html(report: RunReport) -> str:
    """One self-contained page: styles and plots inside, nothing to load, no scripts."""
    # matplotlib takes half a second to import, which text and JSON need not pay.
    from sesurgery.reports.pages.page import render

    return render(report)


def to_text(report: RunReport) -> str:
    """Verdict and key figures for a terminal."""
    summary = summarise(report)
    numbers = aligned([[f"  {figure.label}", figure.value] for figure in summary.figures])
    lines = [f"{line}  {figure.detail}" for line, figure in zip(numbers, summary.figures, strict=True)]
    warnings = [f"warning: {warning}" for warning in summary.warnings]
    return "\n".join([f"{report.title}: {summary.finding}", *lines, *warnings]) + "\n"


def to_json(report: RunReport) -> dict[str, object]:
    """Everything as plain JSON data; a number that is not finite becomes null."""
    summary = summarise(report)
    return {
        "schema_version": 1,
        "title": report.title,
        "created": report.created,
        "command": report.command,
        "summary": fields(summary),
        "network": fields(report.network),
        "training": plain(report.training),
        "engines": [parity.to_json(engine) for engine in report.engines],
        "latency": [latency.to_json(section) for section in report.latency],
        "prices": [prices.to_json(priced) for priced in report.prices],
        "folding": None if report.folding is None else fold.to_json(report.folding),
        "provenance": fields(report.provenance),
    }


def to_markdown(report: RunReport) -> str:
    """The whole report as GitHub Markdown, plots left out."""
    return f"# {markdown(report.title)}\n\n{sections(report)}\n"


def sections(report: RunReport, heading: str = "##") -> str:
    """All of it but its title, each section under a `heading` of that level."""
    summary = summarise(report)
    parts = [
        f"**{markdown(summary.finding)}.** {markdown(' '.join(summary.sentences))}",
        f"Made {markdown(report.created)} by {markdown_code(report.command)}.",
        *(f"> Warning: {markdown(warning)}" for warning in summary.warnings),
        f"{heading} Network",
        *_network(report.network),
    ]
    if report.training:
        parts += [f"{heading} Training", markdown(report.training.data), *_training(report.training)]
    if report.engines:
        parts += [f"{heading} Engines", *_engines(report), parity.to_markdown(report.engines).rstrip()]
        parts += [text for engine in report.engines for text in _looked_into(engine, f"{heading}#")]
    for section in report.latency:
        parts += [f"{heading} Latency: {markdown(section.title)}", latency.to_markdown(section).rstrip()]
    for priced in report.prices:
        parts += [f"{heading} What each block costs: {markdown(priced.engine)}", prices.to_markdown(priced).rstrip()]
    if report.folding is not None:
        parts += [f"{heading} What folding saves", fold.to_markdown(report.folding).rstrip()]
    return "\n\n".join([*parts, f"{heading} Provenance", *_provenance(report)])


def _network(network: NetworkSection) -> list[str]:
    sites = [
        [
            site.key,
            "-" if site.stage is None else str(site.stage),
            f"{site.channels} × {site.height} × {site.width}",
            site.block,
            f"{site.params:,}",
            f"{site.macs:,}",
        ]
        for site in network.sites
    ]
    return [
        "\n".join(markdown_table(["", "before", "after", "added", "share"], network_totals(network))),
        markdown(f"{network.model}, input {' × '.join(map(str, network.input_shape))}. {network.convention}."),
        "\n".join(markdown_table(["site", "stage", "feature map", "block", "parameters", "MACs"], sites)),
    ]


def _training(training: TrainingSection) -> list[str]:
    return ["\n".join(markdown_table(EPOCHS, epochs_table(training)))]


def _engines(report: RunReport) -> list[str]:
    rows = [
        [engine.name, engine.file, f"{engine.build_seconds:.1f} s", convolution_counts(engine)]
        for engine in report.engines
    ]
    table = "\n".join(markdown_table(["engine", "file", "build", "convolutions"], rows))
    return [table, *filter(None, (_kept(engine) for engine in report.engines))]


def _looked_into(engine: EngineSection, heading: str) -> list[str]:
    """The error by place, where it was measured, and the samples whose answer changed."""
    parts = []
    if engine.drift is not None:
        parts += [f"{heading} {markdown(engine.name)}: error by place", drift.to_markdown(engine.drift)]
    if engine.flipped:
        rows = "\n".join(markdown_table(flips.HEADER, flips.table(engine.flipped)))
        parts += [f"{heading} {markdown(engine.name)}: samples whose answer changed", rows]
    return parts


def _kept(engine: EngineSection) -> str:
    """A list of the reasons for which nodes of an engine stayed fp32."""
    lines = [f"- {plural(len(nodes), 'node')}: {markdown(why)}" for why, nodes in kept_fp32(engine)]
    return "\n".join([f"Kept in fp32 in {markdown(engine.name)}:", "", *lines]) if lines else ""


def _provenance(report: RunReport) -> list[str]:
    made = report.provenance
    rows = [["device", made.device], *([name, text] for name, text in (*made.versions.items(), *made.digests.items()))]
    parts = ["\n".join(markdown_table(["what", "value"], rows))]
    if made.files:
        files = [[row.path, row.role, row.sha256] for row in made.files]
        parts.append("\n".join(markdown_table(["file", "role", "SHA-256"], files)))
    return parts
