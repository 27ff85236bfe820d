"""`sesurgery lower`: the lowering passes alone, on any ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import as_json, emit_json, force

if TYPE_CHECKING:
    from sesurgery.pipeline.lower import LoweredFile


@click.command("lower")
@click.argument("source", type=click.Path(path_type=Path), metavar="NET.onnx")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--for",
    "backend",
    required=True,
    metavar="BACKEND",
    help="Use the passes of this backend (`sesurgery list backends`).",
)
@click.option("--passes", help="These passes instead, separated by commas (`sesurgery list passes`).")
@click.option("--explain", is_flag=True, help="List every change, and what was left alone and why.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Samples that the pass constant_gates decides by.",
)
@click.option("--half", is_flag=True, help="Use only the half of the samples that `gates NET.onnx --fold` decides by.")
@click.option("--bound", type=float, help="Largest error of a gate that constant_gates may fold. Default: 0.01.")
@click.option("--no-verify", is_flag=True, help="Do not compare outputs after each pass.")
@force
@as_json
def command(
    source: Path,
    target: Path,
    backend: str,
    passes: str | None,
    explain: bool,
    calibration: Path | None,
    half: bool,
    bound: float | None,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Rewrite an ONNX file so that attention blocks cost less on a backend. Outputs are compared after each pass.

    Some optimisations happen only while an engine is built and are not in the file: onnxruntime applies gates in its
    blocked layout, for single samples and for the engine's optimal batch.
    """
    if half and calibration is None:
        raise click.UsageError("--half goes with --calibration FILE.npz")
    from sesurgery import pipeline

    names = None if passes is None else tuple(name.strip() for name in passes.split(",") if name.strip())
    done = pipeline.lower(
        pipeline.LowerRequest(source, target, backend, names, not no_verify, calibration, bound, force, half)
    )
    if as_json:
        emit_json(_data(done))
        return
    if explain:
        click.echo(f"gates of attention blocks, found by dataflow: {done.gates}")
        for name, edits in done.edits.items():
            for edit in edits:
                click.echo(f"{name}: {'' if edit.changed else 'left alone: '}{edit.where}: {edit.why}")
            if not edits:
                click.echo(f"{name}: nothing that it could change")
        if done.left_out:
            click.echo(f"not in the passes of {backend}: {', '.join(done.left_out)}")
    if not done.gates and not explain:
        click.echo("no attention gate was found: no map is scaled by values computed from its own mean")
    for note in done.notes:
        click.echo(note)
    compared = "" if done.difference is None else f", largest relative difference {done.difference:.2g}"
    counts = f"{done.changed} edits by {len(done.passes)} passes, {done.nodes[0]} -> {done.nodes[1]} nodes"
    click.echo(f"{counts}{compared} -> {done.path.as_posix()}")


def _data(done: LoweredFile) -> dict[str, object]:
    return {
        "path": done.path.as_posix(),
        "passes": list(done.passes),
        "nodes": {"before": done.nodes[0], "after": done.nodes[1]},
        "gates": done.gates,
        "left_out": list(done.left_out),
        "difference": done.difference,
        "notes": list(done.notes),
        "edits": [
            {"pass": name, "where": edit.where, "why": edit.why, "changed": edit.changed}
            for name, edits in done.edits.items()
            for edit in edits
        ],
    }
