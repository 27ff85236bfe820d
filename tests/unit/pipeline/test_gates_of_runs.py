"""The verb `gates`: what is measured is what the block multiplied by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sesurgery import pipeline
from sesurgery.networks import checkpoint
from sesurgery.pipeline.gates import GateResult, highest, observed
from sesurgery.reports.gates import draw, to_json, to_text


@pytest.fixture
def found(here: Path) -> GateResult:
    return pipeline.gates(Path("runs/tiny"), classes=3, samples=5)


def test_the_gates_are_those_that_the_block_computes(here, found):
    run = checkpoint.read(Path("runs/tiny"), pipeline.catalogs())
    block = run.network.get_submodule(run.plan.sites[0].module)
    x = torch.rand(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = block(x)
        expected = torch.sigmoid(block.fc2(block.act(block.fc1(x.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(observed(x, made), expected.flatten(1) * block.gain)
    assert [each.key for each in found.blocks] == [site.key for site in run.plan.sites]
    assert found.left == ()
    assert found.classes == ("0", "1", "2")
    assert {of.samples for each in found.blocks for of in each.classes} == {5}


def test_what_differs_over_the_map_is_no_gate_of_a_channel():
    x = torch.rand(2, 3, 4, 4) + 0.1
    assert observed(x, x * torch.rand(2, 1, 4, 4)) is None
    assert observed(x * 0, x * 0).isnan().all()


def test_text_json_and_picture_hold_every_block(found, tmp_path):
    text = to_text(found)
    assert all(each.key in text for each in found.blocks)
    written = to_json(found)
    keys = {"key", "mean", "std", "between_class", "dead", "saturated", "constant_within", "advice"}
    assert all(keys <= set(each) for each in written["blocks"])
    draw(found, tmp_path / "gates.png", "png")
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")


def test_the_upper_end_is_that_of_the_blocks_gate():
    se = pipeline.load_spec({**SPEC, "surgery": [{"insert": {"block": "se", "init": "identity"}, "at": "residual"}]})
    assert highest(se.surgery[0].insert.options) == 2
    relu = pipeline.load_spec({**SPEC, "surgery": [{"insert": {"block": "se", "gate": "relu"}, "at": "residual"}]})
    assert highest(relu.surgery[0].insert.options) is None


SPEC = {
    "version": 1,
    "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20"},
    "input": {"shape": [3, 32, 32]},
}
