"""`sesurgery doctor`: what this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import click

from sesurgery.cli.console import as_json, emit_json


@click.command("doctor")
@as_json
def command(as_json: bool) -> None:
    """Show what is installed and what each backend can do here."""
    import dataclasses

    from sesurgery.artifacts import cpu_name, versions
    from sesurgery.backends import BACKENDS, gpu

    found = {name: BACKENDS.load(name)().probe() for name in BACKENDS.names()}
    device = gpu()
    if as_json:
        backends = {name: dataclasses.asdict(capability) for name, capability in found.items()}
        emit_json({"versions": versions(), "device": cpu_name(), "gpu": device, "backends": backends})
        return
    click.echo(f"device  {cpu_name()}")
    click.echo(f"GPU     {device or 'none that a CUDA driver lists'}")
    for package, version in versions().items():
        click.echo(f"{package:<12}  {version}")
    click.echo()
    for name, capability in found.items():
        click.echo(f"{name}  {capability.version or 'not installed'}")
        click.echo(f"  builds: {_answer(capability.builds)}")
        click.echo(f"  runs:   {_answer(capability.runs)}")
        for note in capability.notes:
            click.echo(f"  {note}")
        if capability.remedy:
            click.echo(f"  to get it: {capability.remedy}")


def _answer(obstacle: str | None) -> str:
    if obstacle is None:
        return click.style("yes", fg="green")
    return f"{click.style('no', fg='red')}, {obstacle}"
