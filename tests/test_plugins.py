"""Every example that a block, a placement, a pass, a data set or a key map carries at the end of its file."""

import os

import pytest
import torch

from sesurgery.blocks import BLOCKS
from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph import GraphView
from sesurgery.lowering import PASSES
from sesurgery.lowering.precision import half, int8
from sesurgery.networks.keymaps import KEYMAPS
from sesurgery.placements import PLACEMENTS
from sesurgery.placements.base import Match, Miss
from sesurgery.training.data import DATASETS
from sesurgery.training.presets import PRESETS

CATALOGS = {catalog.kind: catalog for catalog in (BLOCKS, PLACEMENTS, PASSES, DATASETS, PRESETS, KEYMAPS)}


def examples(catalog):
    return [
        pytest.param(example, id=f"{name}-{getattr(example, 'name', index)}")
        for name in catalog.names()
        for index, example in enumerate(catalog.examples(name))
    ]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, catalog in CATALOGS.items() for name in catalog.names()]
)
def test_every_plugin_brings_examples(kind, name):
    assert CATALOGS[kind].examples(name)


@pytest.mark.parametrize("block", examples(BLOCKS))
@pytest.mark.parametrize("channels", [16, 64])
def test_a_block_keeps_the_shape_and_learns(block, channels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = block.build(channels).eval()
    x = torch.randn(2, channels, 6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = module(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    (y**2).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("example", examples(PLACEMENTS))
def test_a_placement_finds_what_its_example_says(example):
    graph = GraphView.parse(example.graph)
    found = list(example.placement.select(graph))
    matches = {item.value.name: tuple(use.user for use in item.uses) for item in found if isinstance(item, Match)}
    misses = [item.text for item in found if isinstance(item, Miss)]
    assert matches == dict(example.matches)
    assert len(misses) == len(example.misses)
    assert all(part in why for part, why in zip(example.misses, misses, strict=True))


@pytest.mark.parametrize("example", examples(KEYMAPS))
def test_a_key_map_places_what_its_example_says(example):
    assert example.keymap.places(example.places.keys()) == example.places


@pytest.mark.parametrize("example", [*examples(PASSES), *half.EXAMPLES, *int8.EXAMPLES])
def test_a_pass_does_what_its_example_says(example):
    example.check()


@pytest.mark.parametrize("dataset", examples(DATASETS))
def test_a_data_set_loads_in_the_shape_asked_for(dataset, tmp_path, monkeypatch):
    # WebDataset's library fetches by curl, which tries for a minute where no network is.
    curl = tmp_path / "curl"
    curl.write_text("#!/bin/sh\nexit 6\n")
    curl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    try:
        data = dataset.load((3, 32, 32))
    except SesurgeryError as error:
        if error.diagnostics[0].code != "SE503":
            raise
        pytest.skip(error.diagnostics[0].message)
    for split in (data.train, data.held_out):
        assert split.images[:].shape == (len(split), 3, 32, 32)
        assert split.labels.shape == (len(split),)
        assert set(split.labels.tolist()) == set(range(len(data.classes)))
