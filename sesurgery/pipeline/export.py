"""The verb `export`: a run's network, or the plain one beneath it, as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import locked
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.networks.plain import plain_network
from sesurgery.pipeline.specs import catalogs
from sesurgery.workspace import OnnxDetails, OnnxManifest, Provenance, describe, relative, require_intact
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.run_files import WEIGHTS


@dataclass(frozen=True)
class ExportResult:
    """An ONNX file, and the largest difference from the model that was found (None if it was there already)."""

    path: Path
    worst: float | None
    nodes: int


def export(folder: Path, workspace: Workspace, *, plain: bool = False, again: bool = True) -> ExportResult:
    """Export a run. `plain` leaves the blocks out and keeps all other weights, as the baseline.

    With `again=False` a file that was made from these very weights is kept.
    """
    name = folder.name + (".plain" if plain else "")
    target = workspace.exports / f"{name}.onnx"
    if not again and (nodes := _nodes_if_current(target, folder)) is not None:
        return ExportResult(target, None, nodes)
    from sesurgery.networks.export import export as export_network
    from sesurgery.onnxgraph import io as onnx_io

    run = checkpoint.read(folder, catalogs())
    network = plain_network(run) if plain else run.network
    with locked(workspace.exports):
        report = export_network(network, run.spec.input.shape, target, run.spec.export)
        describe(
            target,
            Provenance(
                OnnxManifest,
                name,
                f"sesurgery export {folder.as_posix()}" + (" --plain" if plain else ""),
                parents=(folder / WEIGHTS,),
                beside=onnx_io.beside(target),
                spec_digest=run.manifest.spec_digest,
                plan_digest=None if plain else run.manifest.plan_digest,
                details=OnnxDetails(
                    run=relative(folder, target),
                    plain=plain,
                    precision="fp32",
                    opset=report.opset,
                    nodes=report.nodes,
                    max_abs_by_batch={str(batch): found for batch, found in report.differences.items()},
                ),
            ),
        )
    return ExportResult(target, report.worst, report.nodes)


def _nodes_if_current(target: Path, folder: Path) -> int | None:
    try:
        made, source = require_intact(target, OnnxManifest), require_intact(folder / WEIGHTS)
    except SesurgeryError:
        return None
    current = any(parent.sha256 == source.sha256 for parent in made.parents)
    return made.details.nodes if current else None
