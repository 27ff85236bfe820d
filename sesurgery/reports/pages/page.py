"""The page: a template, a style sheet and the plots, all in one file of HTML."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from sesurgery.reports import wording
from sesurgery.reports.model import EngineSection, LatencySection, RunReport
from sesurgery.reports.pages.summary import summarise
from sesurgery.reports.pages.tables import EPOCHS, convolution_counts, epochs_table, kept_fp32, network_totals
from sesurgery.reports.plots import (
    drift as drift_plot,
)
from sesurgery.reports.plots import (
    latency as latency_plots,
)
from sesurgery.reports.plots import (
    parity as parity_plot,
)
from sesurgery.reports.plots import (
    prices as prices_plot,
)
from sesurgery.reports.plots import (
    training as training_plot,
)
from sesurgery.reports.plots.canvas import Plot
from sesurgery.reports.text import fold, latency, parity, prices, service
from sesurgery.verification.cost import Prices

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Race:
    """A latency section as the page shows it."""

    section: LatencySection
    protocol: str
    findings: list[str]
    header: list[str]
    rows: list[list[str]]
    plots: tuple[Plot, ...]
    served: list[str]
    cold: list[list[str]]
    streams: list[list[str]]


@dataclass(frozen=True)
class Compared:
    """An engine with the plots of its comparisons."""

    engine: EngineSection
    plots: tuple[Plot, ...]


def render(report: RunReport) -> str:
    """The report as HTML; every text is escaped, only our own SVG and CSS are taken as they are."""
    return environment().get_template("report.html").render(
        report=report,
        summary=summarise(report),
        totals=network_totals(report.network),
        most_params=max((site.params for site in report.network.sites), default=1) or 1,
        epochs_header=EPOCHS,
        epochs_rows=epochs_table(report.training),
        learning=training_plot.learning("t", report.training) if report.training and report.training.epochs else None,
        engines=[_compared(f"e{number}", engine) for number, engine in enumerate(report.engines)],
        parity_header=parity.HEADER,
        parity_rows=parity.table(report.engines),
        parity_remarks=parity.remarks(report.engines),
        shares_header=parity.SHARES,
        shares_rows=parity.shares(report.engines),
        probes_header=parity.PROBES,
        probes_rows=parity.probes(report.engines),
        prices=[_priced(f"p{number}", priced) for number, priced in enumerate(report.prices)],
        prices_header=prices.HEADER,
        folding=report.folding,
        folding_header=report.folding and fold.header(report.folding),
        folding_rows=report.folding and fold.table(report.folding),
        folding_findings=report.folding and fold.findings(report.folding),
        tax_plot=latency_plots.tax("l", report.latency),
        cold_header=service.COLD,
        service_header=service.HEADER,
        races=[_race(f"l{number}", section) for number, section in enumerate(report.latency)],
    )  # fmt: skip


def _compared(name: str, engine: EngineSection) -> Compared:
    plots = tuple(parity_plot.parity(f"{name}b{number}", entry) for number, entry in enumerate(engine.parity))
    if engine.drift is not None:
        plots = (*plots, drift_plot.growth(name, engine.drift))
    return Compared(engine, plots)


@dataclass(frozen=True)
class PriceList:
    """A price list as the page shows it."""

    engine: str
    rows: list[list[str]]
    findings: list[str]
    plot: Plot


def _priced(name: str, priced: Prices) -> PriceList:
    return PriceList(
        priced.engine, prices.table(priced), prices.findings(priced), prices_plot.against_place(name, priced)
    )


def _race(name: str, section: LatencySection) -> Race:
    header, rows = latency.table(section.report)
    return Race(
        section=section,
        protocol=latency.protocol(section),
        findings=latency.findings(section.report),
        header=header,
        rows=rows,
        plots=(latency_plots.spread(name, section.report), latency_plots.rounds(name, section.report)),
        served=service.findings(section.services),
        cold=service.cold(section.services),
        streams=service.table(section.services),
    )


@functools.cache
def environment() -> jinja2.Environment:
    """The templates, and the filters and style sheet that they share."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # A line must not break between a number and its percent sign.
        finalize=lambda value: value.replace(" %", "\u00a0%") if isinstance(value, str) else value,
    )
    environment.filters |= {
        "percent": wording.percent,
        "count": wording.count,
        "plural": wording.plural,
        "file_size": wording.file_size,
        "convolutions": convolution_counts,
        "kept_fp32": kept_fp32,
    }
    environment.globals["style"] = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    environment.globals["inline"] = Markup
    return environment
