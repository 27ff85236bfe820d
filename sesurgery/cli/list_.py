"""`sesurgery list`: the names that a spec may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sesurgery.spec.plugins import Named


@click.command("list")
@click.argument(
    "what", type=click.Choice(["blocks", "placements", "passes", "backends", "datasets", "presets", "keymaps", "zoo"])
)
def command(what: str) -> None:
    """List what a spec may name, with a one-line description; `zoo` lists the specs of published networks."""
    if what == "zoo":
        _list_zoo()
        return
    from sesurgery.backends import BACKENDS
    from sesurgery.blocks import BLOCKS
    from sesurgery.lowering import PASSES
    from sesurgery.networks.keymaps import KEYMAPS
    from sesurgery.placements import PLACEMENTS
    from sesurgery.spec.plugins import engine_makers
    from sesurgery.training.data import DATASETS
    from sesurgery.training.presets import PRESETS

    catalogs: dict[str, Named] = {
        "blocks": BLOCKS,
        "placements": PLACEMENTS,
        "passes": PASSES,
        "backends": engine_makers(BACKENDS),
        "datasets": DATASETS,
        "presets": PRESETS,
        "keymaps": KEYMAPS,
    }
    catalog = catalogs[what]
    names = catalog.names()
    for name in names:
        click.echo(f"{name:<{max(map(len, names))}}  {catalog.summary(name)}")


def _list_zoo() -> None:
    from sesurgery.spec import zoo

    width = max(map(len, zoo.names()))
    for name in zoo.names():
        click.echo(f"{name:<{width}}  {zoo.title(name)}")
