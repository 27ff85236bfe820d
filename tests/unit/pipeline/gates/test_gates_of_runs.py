"""The verb `gates`: what is measured is what the block multiplied by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline.gates.gates import GateResult, highest
from sesurgery.reports.text.gates import draw, to_json, to_text
from sesurgery.verification.gate_values import gate_of


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
    torch.testing.assert_close(gate_of(x, made), expected.flatten(1) * block.gain)
    assert [each.key for each in found.blocks] == [site.key for site in run.plan.sites]
    assert found.left == ()
    assert found.classes == ("0", "1", "2")
    assert {of.samples for each in found.blocks for of in each.classes} == {5}


def test_what_differs_over_the_map_is_no_gate_of_a_channel():
    x = torch.rand(2, 3, 4, 4) + 0.1
    assert gate_of(x, x * torch.rand(2, 1, 4, 4)) is None
    assert gate_of(x * 0, x * 0).isnan().all()


def test_text_json_and_picture_hold_every_block(found, tmp_path):
    text = to_text(found)
    assert all(each.key in text for each in found.blocks)
    written = to_json(found)
    keys = {"key", "mean", "std", "between_class", "dead", "saturated", "constant_within", "advice"}
    assert all(keys <= set(each) for each in written["blocks"])
    draw(found, tmp_path / "gates.png", "png")
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")


def idle(found: GateResult, *which: int) -> GateResult:
    """The same, as if the gates of these blocks had not moved."""
    blocks = tuple(
        replace(each, constant_within=0.0 if index in which else 0.5) for index, each in enumerate(found.blocks)
    )
    return replace(found, blocks=blocks)


def test_a_pruned_spec_has_all_blocks_but_those_that_do_nothing(here, found):
    made = pipeline.prune(idle(found, 0), Path("pruned.yaml"))
    assert (made.left_out, made.left_in) == ((found.blocks[0].key,), ())
    spec = pipeline.load_spec(Path("pruned.yaml"))
    assert spec.name == "tiny-pruned"
    assert [site.key for site in pipeline.plan(spec).plan.sites] == [each.key for each in found.blocks[1:]]
    with pytest.raises(SesurgeryError, match=r"SE405.*already there"):
        pipeline.prune(idle(found, 1), Path("pruned.yaml"))


def test_nothing_is_pruned_where_no_block_or_every_block_does_something(here, found):
    with pytest.raises(SesurgeryError, match=r"SE201.*every block of runs/tiny pays"):
        pipeline.prune(idle(found), Path("pruned.yaml"))
    with pytest.raises(SesurgeryError, match=r"(?s)SE201.*no block of runs/tiny pays.*take the plain network"):
        pipeline.prune(idle(found, *range(len(found.blocks))), Path("pruned.yaml"))
    with pytest.raises(SesurgeryError, match=r"SE405.*is not in the folder of the run's spec"):
        pipeline.prune(idle(found, 0), Path("elsewhere/pruned.yaml"))
    assert not Path("pruned.yaml").exists()


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
