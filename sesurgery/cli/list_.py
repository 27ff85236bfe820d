"""`sesurgery list`: the names that a spec may use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from sesurgery.tables import aligned

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
    _print((name, catalog.summary(name)) for name in catalog.names())


def _list_zoo() -> None:
    from sesurgery.spec import zoo

    _print((name, zoo.title(name)) for name in zoo.names())


def _print(rows: Iterable[tuple[str, str]]) -> None:
    for line in aligned(list(rows), left=(0, 1)):
        click.echo(line)
