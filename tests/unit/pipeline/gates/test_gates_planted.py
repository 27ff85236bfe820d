"""Dead, saturated and constant gates that were planted in a network are named by `gates`, block by block."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fixtures.planted import Planted, plant
from fixtures.sharing import Once

from sesurgery import pipeline
from sesurgery.networks import checkpoint
from sesurgery.pipeline import Workspace
from sesurgery.training.data import data_of
from sesurgery.verification.gates import BlockGates

SPEC = {
    "version": 1,
    "name": "planted",
    "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20", "kwargs": {"in_channels": 1}},
    "input": {"shape": [1, 8, 8]},
    "surgery": [{"insert": {"block": "se", "reduction": 4}, "at": "residual"}],
    "train": {"data": {"dataset": "digits", "held_out": 0.1}},
}
PLANTED = (
    Planted(3, 1, 2),
    Planted(0, 0, 0),
    Planted(1, 5, 0),
    Planted(0, 4, 7),
    Planted(6, 0, 1),
    Planted(2, 2, 2),
    Planted(constant=64),
    Planted(dead=30, saturated=34),
    Planted(dead=40, saturated=3, constant=5),
)
"""Of the nine blocks of a ResNet-20, which have 16, 32 and 64 channels."""
ADVICE = ("keep", "keep", "keep", "keep", "keep", "keep", "fold", "look: every channel", "look: half")
CASES = [(block, kind) for block in range(9) for kind in ("dead", "saturated", "constant", "advice")]


@pytest.fixture(scope="module")
def found(once: Once) -> list[dict[str, object]]:
    """The blocks as `gates` reports them: one run, planted from its first block to its last, looked at once."""

    def make() -> None:
        folder = pipeline.apply(pipeline.load_spec(SPEC), Workspace(), "planted.yaml").folder
        run, draw = checkpoint.read(folder, pipeline.catalogs()), np.random.default_rng(0)
        images = data_of(run.spec).held_out.images[:]
        for site, planted in zip(run.plan.sites, PLANTED, strict=True):
            plant(run.network, run.network.get_submodule(site.module), images, planted.kinds, draw)
        checkpoint.save(folder, run.network, run.spec, run.plan, "test", run.manifest.details)
        blocks: tuple[BlockGates, ...] = pipeline.gates(folder, classes=10, samples=1000).blocks
        Path("blocks.json").write_text(json.dumps([asdict(block) for block in blocks]))

    return json.loads((once("planted", make) / "blocks.json").read_text())


@pytest.mark.parametrize(("block", "kind"), CASES)
def test_what_was_planted_in_a_network_is_named(block: int, kind: str, found: list[dict[str, object]]) -> None:
    if kind == "advice":
        assert str(found[block]["advice"]).startswith(ADVICE[block])
    else:
        assert found[block][kind] == getattr(PLANTED[block], kind)


def test_nothing_that_was_not_planted_is_named(found: list[dict[str, object]]) -> None:
    assert [block["unseen"] for block in found] == [0] * 9
    named = sum(int(str(block[kind])) for block in found for kind in ("dead", "saturated", "constant"))
    assert named == sum(len(planted.kinds) for planted in PLANTED)
