"""The report of a run, put together from what lies on disk: whatever has been done so far is in it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from sesurgery.accounting import CONVENTION
from sesurgery.artifacts import digest_file, read_small, to_json, write_text
from sesurgery.diagnostics import fail
from sesurgery.networks.checkpoint import Run, read
from sesurgery.networks.run_files import PLAN, SPEC, WEIGHTS
from sesurgery.pipeline import results
from sesurgery.pipeline.begun import TRAIN
from sesurgery.pipeline.plan import site_costs
from sesurgery.pipeline.specs import catalogs
from sesurgery.pipeline.workspace import Workspace, is_yardstick
from sesurgery.reports import to_html, to_markdown
from sesurgery.reports import to_json as report_to_json
from sesurgery.reports.model import (
    EpochRow,
    FileRow,
    LatencySection,
    NetworkSection,
    Provenance,
    RunReport,
    SiteRow,
    TrainingSection,
)


@dataclass(frozen=True)
class Reported:
    """The three forms of one report."""

    html: Path
    markdown: Path
    json: Path
    report: RunReport


def write_report(folder: Path, workspace: Workspace) -> Reported:
    """Write `report.html`, `report.md` and `report.json` into the run's folder."""
    run = read(folder, catalogs())
    report = assemble(run, workspace)
    written = Reported(folder / "report.html", folder / "report.md", folder / "report.json", report)
    write_text(written.html, to_html(report))
    write_text(written.markdown, to_markdown(report))
    write_text(written.json, to_json(report_to_json(report)))
    return written


def assemble(run: Run, workspace: Workspace) -> RunReport:
    """The report of a run with its engines, their parity and their latency as far as they were measured."""
    built = [(path, manifest) for path, manifest in workspace.built(run.folder) if not is_yardstick(manifest)]
    latencies: list[LatencySection] = []
    for path, manifest in built:
        latencies += results.latency_sections(run.folder, path, manifest, run.manifest.sha256)
    files = [(run.folder / SPEC, "spec"), (run.folder / PLAN, "plan"), (run.folder / WEIGHTS, "weights")]
    files += [(path, "engine") for path, _ in workspace.built(run.folder)]
    return RunReport(
        title=run.folder.name,
        created=run.manifest.created,
        command=f"sesurgery run {(run.manifest.spec_file(run.folder / WEIGHTS) or run.folder / SPEC).as_posix()}",
        network=_network(run),
        training=_training(run),
        engines=tuple(
            results.engine_section(run.folder, path, manifest, run.manifest.sha256) for path, manifest in built
        ),
        latency=tuple(latencies),
        provenance=Provenance(
            versions=run.manifest.versions,
            device=run.manifest.device,
            digests={"spec": run.manifest.spec_digest or "", "plan": run.manifest.plan_digest or ""},
            files=tuple(FileRow(path.as_posix(), digest_file(path), role) for path, role in files),
        ),
    )


def _network(run: Run) -> NetworkSection:
    details = run.manifest.details
    rows = tuple(
        SiteRow(site.key, site.stage, site.channels, site.height, site.width, site.block.name, spent.params, spent.macs)
        for site, spent in zip(run.plan.sites, site_costs(run.plan), strict=True)
    )
    return NetworkSection(
        model=f"{run.spec.model.source}:{run.spec.model.name}",
        input_shape=run.spec.input.shape,
        sites=rows,
        params_before=details.params_before,
        params_after=details.params_after,
        macs_before=details.macs_before,
        macs_after=details.macs_after,
        convention=CONVENTION,
    )


def _training(run: Run) -> TrainingSection | None:
    table = run.folder / TRAIN / "metrics.csv"
    top1 = run.manifest.details.top1
    if top1 is None or not table.is_file():
        return None
    try:
        epochs = tuple(
            EpochRow(int(row["epoch"]), float(row["train_loss"]), float(row["held_out_top1"]), float(row["lr"]))
            for row in csv.DictReader(io.StringIO(read_small(table), newline=""))
        )
    except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
        why = f"{type(error).__name__}: {error}"
        text = f"{table.as_posix()} is not the table of epochs that training wrote: {why}"
        raise fail("SE401", text, f"write it anew: `sesurgery train {run.folder.as_posix()} --resume`") from error
    if len(epochs) != run.manifest.details.epochs:
        # Of a training begun since and not finished; the weights are those of the one before.
        epochs = ()
    return TrainingSection(run.spec.train.data.name, epochs, top1)
