"""A plan with its costs, and mistakes that only the network or the block can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sesurgery import pipeline
from sesurgery.accounting import cost
from sesurgery.diagnostics import SpecError
from sesurgery.surgeons.fx.surgeon import FxSurgeon


def planned(*rules: dict[str, Any]) -> Any:
    return pipeline.plan(
        pipeline.load_spec(
            {
                "version": 1,
                "model": {
                    "source": "python",
                    "name": "sesurgery.networks.cifar_resnet:CifarResNet",
                    "kwargs": {"depth": 8},
                },
                "input": {"shape": [3, 16, 16]},
                "surgery": [{"at": "residual", **rule} for rule in rules],
            }
        )
    )


def test_what_is_after_is_what_the_changed_network_has():
    made = planned({"insert": {"block": "se", "reduction": 4}})
    changed = FxSurgeon((3, 16, 16)).apply(made.network.module, made.plan)
    assert made.after == cost(changed, (3, 16, 16))


def test_a_sites_cost_is_its_blocks():
    made = planned({"insert": {"block": "se", "reduction": 4, "bias": False}})
    assert [(site.params, site.macs) for site in made.sites] == [(128, 128), (512, 512), (2048, 2048)]


def test_the_summary_is_one_line_with_both_currencies():
    assert planned({"insert": {"block": "se", "reduction": 4, "bias": False}}).summary() == (
        "3 sites, +2.69 k (+3.4%) parameters, +2.69 k (+0.1%) MACs"
    )


def test_planning_builds_one_network_for_one_seed_and_leaves_the_callers_generator():
    before = torch.random.get_rng_state()
    networks = [planned({"insert": "se"}).network.module.state_dict() for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(networks[0][key], value) for key, value in networks[1].items())


def too_narrow(channels: int) -> nn.Module:
    if channels < 32:
        raise ValueError("at least 32 channels")
    return nn.InstanceNorm2d(channels)


def breaks(channels: int) -> nn.Module:
    return nn.Conv2d(channels + 1, channels, 1)


def halves(channels: int) -> nn.Module:
    return nn.AvgPool2d(2)


def flattens(channels: int) -> nn.Module:
    return nn.Flatten()


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def several(channels: int) -> nn.Module:
    return Several()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("too_narrow", r"cannot be built for .*layer1\.0\[0\] \(16 channels\): at least 32 channels"),
        ("breaks", r"cannot be run for .*layer1\.0\[0\] \(16 channels\): .*17"),
        ("halves", r"changes the map at python/layer1\.0\[0\] from 16x16x16 to 16x8x8"),
        ("flattens", r"changes the map at python/layer1\.0\[0\] from 16x16x16 to 4096"),
        ("several", r"returns tuple, not a tensor, at python/layer1\.0\[0\]"),
    ],
)
def test_a_block_that_does_not_work_is_the_users_to_mend_and_is_named_once(factory, message):
    with pytest.raises(SpecError, match=message) as caught:
        planned({"insert": {"block": "python", "factory": f"{__name__}:{factory}"}})
    assert [item.code for item in caught.value.diagnostics] == ["SE305"]


def test_every_rule_whose_block_does_not_work_is_named():
    rules = [
        {"insert": {"block": "python", "factory": f"{__name__}:{factory}"}, "stages": [stage]}
        for factory, stage in (("too_narrow", 1), ("breaks", 2))
    ]
    with pytest.raises(SpecError) as caught:
        planned(*rules)
    assert [item.code for item in caught.value.diagnostics] == ["SE305", "SE305"]


def test_planning_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned({"insert": "se"})
    assert list(Path().iterdir()) == []


def test_a_picture_an_account_and_the_figures_draw_the_network_once(tmp_path, monkeypatch):
    looks = []
    draw = FxSurgeon.drawing
    monkeypatch.setattr(
        FxSurgeon, "drawing", lambda self, model, *given: looks.append(model) or draw(self, model, *given)
    )
    made = planned({"insert": "se"})
    pipeline.draw(made, tmp_path / "plan.svg")
    assert looks == [made.network.module]
    assert made.network.view.digest == made.plan.view_digest
