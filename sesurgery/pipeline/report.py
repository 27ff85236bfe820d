"""The report of a run, put together from what lies on disk: whatever has been done so far is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import digest_file, to_json, write_text
from sesurgery.networks.checkpoint import read_plan, read_spec
from sesurgery.pipeline.specs import catalogs
from sesurgery.planner import Plan
from sesurgery.reports import results, to_html, to_markdown
from sesurgery.reports import to_json as report_to_json
from sesurgery.reports.model import (
    EpochRow,
    FileRow,
    LatencySection,
    NetworkSection,
    Provenance,
    RunReport,
    TrainingSection,
)
from sesurgery.reports.pages import runs
from sesurgery.spec import Spec
from sesurgery.training.begun import TRAIN
from sesurgery.training.epochs import epochs_of
from sesurgery.verification.cost import PRICES, Prices
from sesurgery.verification.folding import FOLDING, SUBJECT
from sesurgery.workspace import RunManifest, require_intact
from sesurgery.workspace.folders import Workspace, is_baseline
from sesurgery.workspace.measurements import Of, OfPlan, OfWeights
from sesurgery.workspace.run_files import PLAN, SPEC, WEIGHTS


@dataclass(frozen=True)
class ReportFiles:
    """The three forms of one report."""

    html: Path
    markdown: Path
    json: Path
    report: RunReport


@dataclass(frozen=True)
class ComparisonFiles:
    """The three forms of several runs side by side."""

    html: Path
    markdown: Path
    json: Path
    reports: tuple[RunReport, ...]


def write_report(folder: Path, workspace: Workspace) -> ReportFiles:
    """Write `report.html`, `report.md` and `report.json` into the run's folder."""
    report = assemble(folder, workspace)
    written = ReportFiles(folder / "report.html", folder / "report.md", folder / "report.json", report)
    write_text(written.html, to_html(report))
    write_text(written.markdown, to_markdown(report))
    write_text(written.json, to_json(report_to_json(report)))
    return written


def write_comparison(folders: Sequence[Path], workspace: Workspace) -> ComparisonFiles:
    """Write `comparison.html`, `.md` and `.json` into runs/, and each run's own report, to which the page leads."""
    reports = tuple(write_report(folder, workspace).report for folder in folders)
    html, text, data = (workspace.runs / f"comparison.{suffix}" for suffix in ("html", "md", "json"))
    pages = [os.path.relpath(folder / "report.html", workspace.runs) for folder in folders]
    links = {report.title: Path(page).as_posix() for report, page in zip(reports, pages, strict=True)}
    write_text(html, runs.to_html(reports, links))
    write_text(text, runs.to_markdown(reports))
    write_text(data, to_json(runs.to_json(reports)))
    return ComparisonFiles(html, text, data, reports)


def report_pages(folders: Sequence[Path], workspace: Workspace) -> dict[str, Callable[[], str]]:
    """Makers of pages by path: `/` is the report of a run, or several side by side, each with a page of its own."""
    if len(folders) == 1:
        return {"/": lambda: to_html(assemble(folders[0], workspace))}
    # Two workspaces may have runs of one name.
    own = {f"/{number}/{folder.resolve().name}": folder for number, folder in enumerate(folders, start=1)}

    def one(folder: Path) -> Callable[[], str]:
        return lambda: to_html(assemble(folder, workspace))

    def several() -> str:
        reports = [assemble(folder, workspace) for folder in folders]
        return runs.to_html(reports, {report.title: path for report, path in zip(reports, own, strict=True)})

    return {"/": several, **{path: one(folder) for path, folder in own.items()}}


def assemble(folder: Path, workspace: Workspace) -> RunReport:
    """The report of a run with its engines, their parity and their latency as far as they were measured.

    Raises SE401 if the run's files are not the ones written together.
    """
    spec = read_spec(folder, catalogs())
    run = require_intact(folder / WEIGHTS, RunManifest)
    plan = read_plan(folder, spec)
    engines = workspace.built(folder)
    built = [(path, manifest) for path, manifest in engines if not is_baseline(manifest)]
    latencies: list[LatencySection] = []
    priced: list[Prices] = []
    for path, manifest in built:
        if (found := PRICES.read(folder, path.name, Of(manifest.sha256, run.sha256))) is not None:
            priced.append(found.prices)
        latencies += results.latency_sections(folder, path, manifest, run.sha256)
    files = [(folder / SPEC, "spec"), (folder / PLAN, "plan"), (folder / WEIGHTS, "weights")]
    files += [(path, "engine") for path, _ in engines]
    return RunReport(
        title=folder.name,
        created=run.created,
        command=f"sesurgery run {(run.spec_file(folder / WEIGHTS) or folder / SPEC).as_posix()}",
        network=_network(folder, spec, plan, run),
        training=_training(folder, spec, run),
        engines=tuple(results.engine_section(folder, path, manifest, run.sha256) for path, manifest in built),
        latency=tuple(latencies),
        prices=tuple(priced),
        folding=FOLDING.read(folder, SUBJECT, OfWeights(run.sha256)),
        provenance=Provenance(
            versions=run.versions,
            device=run.device,
            digests={"spec": run.spec_digest or "", "plan": run.plan_digest or ""},
            files=tuple(FileRow(path.as_posix(), digest_file(path), role) for path, role in files),
        ),
    )


def _network(folder: Path, spec: Spec, plan: Plan, run: RunManifest) -> NetworkSection:
    found = results.NETWORK.read(folder, results.PLAN, OfPlan(run.plan_digest or ""))
    if found is not None:
        return found.section
    # A run of an earlier version, which did not store costs: count the plan's blocks. That alone needs torch.
    from sesurgery.accounting import Cost
    from sesurgery.networks.block_costs import site_costs

    told = run.details
    before, after = Cost(told.params_before, told.macs_before), Cost(told.params_after, told.macs_after)
    return results.network_section(spec, plan, site_costs(plan), before, after)


def _training(folder: Path, spec: Spec, run: RunManifest) -> TrainingSection | None:
    top1 = run.details.top1
    if top1 is None or not (folder / TRAIN / "metrics.csv").is_file():
        return None
    epochs = tuple(
        EpochRow(each.epoch, each.train_loss, each.held_out_top1, each.lr)
        for each in epochs_of(folder, run.details.epochs)
    )
    return TrainingSection(spec.train.data.name, epochs, top1)
