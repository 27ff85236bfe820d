"""What a study's axes come to, and what is wrong with them."""

from __future__ import annotations

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SpecError
from sesurgery.studies.cells import Cell, grid, trial_spec

BASE = {
    "version": 1,
    "name": "tiny",
    "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:CifarResNet", "kwargs": {"depth": 8}},
    "input": {"shape": [3, 8, 8]},
    "surgery": [{"insert": {"block": "se", "reduction": 4}, "at": "residual"}],
}


def spec_with(**study):
    return pipeline.load_spec({**BASE, "study": study})


def test_a_grid_has_every_combination_and_one_plain_network():
    spec = spec_with(axes={"surgery[0].insert.reduction": [2, 4], "surgery[0].at": ["residual", "pre"]})
    cells = grid(spec.study)
    assert [str(cell) for cell in cells] == [
        "plain",
        *(f"reduction={reduction}, at={at}" for reduction in (2, 4) for at in ("residual", "pre")),
    ]


def test_an_axis_beside_surgery_has_a_plain_network_for_each_value():
    spec = spec_with(axes={"model.kwargs.depth": [8, 14], "surgery[0].insert.reduction": [4]})
    assert [(str(cell), cell.plain) for cell in grid(spec.study)] == [
        ("plain, depth=8", True),
        ("depth=8, reduction=4", False),
        ("plain, depth=14", True),
        ("depth=14, reduction=4", False),
    ]


def test_cells_that_differ_in_their_engine_alone_share_a_training():
    spec = spec_with(axes={"engines[0].precision": ["fp32", "int8"], "surgery[0].insert.reduction": [2, 4]})
    cells = [cell for cell in grid(spec.study) if not cell.plain]
    assert [str(cell.trained) for cell in cells] == ["reduction=2", "reduction=4"] * 2
    assert all(cell.deployed for cell in cells)
    assert trial_spec(spec, cells[0].trained, 0).digest == trial_spec(spec, cells[2].trained, 0).digest
    assert trial_spec(spec, cells[2], 0).engines[0].precision == "int8"


def test_a_cell_of_another_training_is_scored_by_that():
    for path in ("train.epochs", "model.kwargs.depth", "input.shape", "surgery[0].at"):
        cell = Cell({path: 1})
        assert (cell.trained, cell.deployed, cell.engine) == (cell, False, 0)
    for path in ("export.opset", "latency.batch", "parity.batches", "engines"):
        assert Cell({path: 1}).deployed
    assert Cell({"train.epochs": 1, "engines[1].backend": "openvino"}).engine == 1


def test_without_axes_the_spec_itself_stands_beside_the_plain_network():
    spec = spec_with(seeds=[0])
    plain, ours = grid(spec.study)
    assert (str(plain), str(ours)) == ("plain", "with blocks")
    assert trial_spec(spec, ours, 0).surgery == spec.surgery
    assert trial_spec(spec, ours, 0).name.startswith("with-blocks-")


def test_a_trial_is_the_spec_with_its_values_its_seed_and_no_study():
    spec = spec_with(axes={"surgery[0].insert.reduction": [2]})
    plain, ours = grid(spec.study)
    made = trial_spec(spec, ours, 7)
    assert (made.surgery[0].insert.options.reduction, made.train.seed, made.study) == (2, 7, None)
    assert pipeline.plan(trial_spec(spec, plain, 7)).plan.sites == ()
    assert len({trial_spec(spec, cell, seed).name for cell in (plain, ours) for seed in (0, 1)}) == 4


def test_every_value_that_does_not_go_at_its_place_is_told_at_once():
    with pytest.raises(SpecError) as caught:
        spec_with(axes={"surgery[0].insert.reduction": [2, "four"], "surgery[3].at": ["pre"], "train.epochs": [0]})
    told = [item.message for item in caught.value.diagnostics]
    assert len(told) == 3
    assert "value four" in told[0]
    assert "leads nowhere" in told[1]
    assert "must be greater than 0" in told[2]


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"axes": {"train.optimizer.lr": {"low": 0.1, "high": 0.2}}}, "a grid needs a list of values"),
        ({"axes": {"train.optimizer.lr": {"low": 0.2, "high": 0.1}}, "search": "random"}, "low < high does not hold"),
        ({"axes": {"train.epochs": [1]}, "seeds": [1, 1]}, "a seed stands twice"),
        ({"axes": {"train.epochs": [1]}, "prune": True}, "a grid is not pruned"),
        ({"search": "bayesian"}, "a bayesian search needs axes"),
        (
            {"axes": {"engines[0].precision": ["fp32"], "engines[1].precision": ["fp32"]}},
            r"engines\[0\] and engines\[1\]: a cell has one engine",
        ),
    ],
    ids=["range in a grid", "ends", "seeds", "prune", "a search for nothing", "two engines"],
)
def test_what_excludes_each_other_is_refused(study, said):
    with pytest.raises(SpecError, match=said):
        spec_with(**study)
