"""Published figures and timm's own SE networks, which this package must reproduce to the parameter and to the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch

from sesurgery import pipeline
from sesurgery.pipeline.plan import NetworkPlan
from sesurgery.planner import plan as resolve
from sesurgery.surgeons.fx.surgeon import FxSurgeon


def planned(
    name: str, rule: dict[str, Any] | None = None, source: str = "timm", size: int = 224, **block: Any
) -> NetworkPlan:
    return pipeline.plan(
        pipeline.load_spec(
            {
                "version": 1,
                "model": {"source": source, "name": name},
                "input": {"shape": [3, size, size]},
                "surgery": [{"insert": {"block": "se", **block}, "at": "residual", **(rule or {})}],
            }
        )
    )


@dataclass(frozen=True)
class Count:
    """Parameters of a network: without blocks, with them, and with blocks that have biases."""

    network: str
    base: int
    bare: int
    biased: int


COUNTS = [
    Count("resnet18", 11_689_512, 11_776_552, 11_778_592),
    Count("resnet34", 21_797_672, 21_954_856, 21_958_868),
    Count("resnet50", 25_557_032, 28_071_976, 28_088_024),
    Count("resnet101", 44_549_160, 49_292_328, 49_326_872),
    Count("resnet152", 60_192_808, 66_770_984, 66_821_848),
]


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count.network)
def test_se_adds_the_parameters_that_the_paper_counts(count):
    made = planned(count.network, bias=True)
    assert (made.before.params, made.after.params) == (count.base, count.biased)
    assert made.before.params + added(made.network.view) == count.bare


@pytest.fixture(scope="module")
def resnet50():
    """The network and its view, drawn once: what is added depends on the plan alone."""
    model = timm.create_model("resnet50")
    return FxSurgeon((3, 224, 224)).view(model)


def added(view: Any, rule: dict[str, Any] | None = None, **block: Any) -> int:
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "timm", "name": "resnet50"},
            "input": {"shape": [3, 224, 224]},
            "surgery": [{"insert": {"block": "se", "bias": False, **block}, "at": "residual", **(rule or {})}],
        }
    )
    blocks = [site.block.options.build(site.channels) for site in resolve(spec, view).sites]
    return sum(part.numel() for block in blocks for part in block.parameters())


RATIOS = {1: 40_239_104, 2: 20_119_552, 4: 10_059_776, 8: 5_029_888, 16: 2_514_944, 32: 1_257_472}


@pytest.mark.parametrize("reduction", RATIOS)
def test_the_ratio_sets_what_resnet50_pays(reduction, resnet50):
    assert added(resnet50, reduction=reduction) == RATIOS[reduction]


STAGES = {1: 24_576, 2: 131_072, 3: 786_432, 4: 1_572_864}


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_of_resnet50_pays_its_share(stage, resnet50):
    assert added(resnet50, {"stages": [stage]}) == STAGES[stage]


def test_the_last_stage_is_five_eighths_of_the_cost(resnet50):
    assert added(resnet50, {"stages": [4]}) / added(resnet50) == pytest.approx(0.625, abs=0.001)


def test_within_the_unit_se_costs_a_sixteenth(resnet50):
    assert added(resnet50, {"at": "inner"}) == 157_184


def test_se_resnet56_for_small_images_has_861818_parameters():
    made = planned("sesurgery.networks.cifar_resnet:resnet56", source="python", size=32, bias=False)
    assert made.after.params == 861_818
    assert len(made.sites) == 27


def test_its_hidden_width_of_one_is_warned_about():
    made = planned("sesurgery.networks.cifar_resnet:resnet56", source="python", size=32, bias=False)
    assert made.plan.warnings[0].startswith("the hidden width is 1 at 16 channels")


def test_resnet50_has_the_macs_that_torchvision_states():
    made = planned("resnet50", source="torchvision")
    assert made.before.macs / 1e9 == pytest.approx(4.09, abs=0.005)
    # Under a tenth of a percent: attention is cheap in MACs, whatever it costs in time.
    assert (made.after.macs - made.before.macs) / made.before.macs < 0.001


@pytest.mark.slow
def test_an_identity_start_changes_no_answer_and_no_key_of_resnet50():
    made = planned("resnet50", init="identity")
    model = made.network.module.eval()
    changed = FxSurgeon((3, 224, 224)).apply(model, made.plan)
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (changed(image) - model(image)).abs().max().item() <= 1e-6
    old, new = model.state_dict(), changed.state_dict()
    assert [key for key in new if key in old] == list(old)
    assert all(torch.equal(new[key], value) for key, value in old.items())


@dataclass(frozen=True)
class Twin:
    """A plain network of timm's and the one that timm has with SE in it."""

    plain: str
    squeezed: str
    params: int


TWINS = [
    Twin("resnet18", "seresnet18", 11_779_624),
    Twin("resnet34", "seresnet34", 21_960_416),
    Twin("resnet50", "seresnet50", 28_088_024),
    Twin("resnext50_32x4d", "seresnext50_32x4d", 27_559_896),
]


@pytest.mark.slow
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.squeezed)
def test_surgery_makes_the_network_that_timm_makes(twin):
    """Same keys, same shapes, same values, same answers: timm rounds the hidden width to multiples of eight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = timm.create_model(twin.squeezed).eval()
        for module in expected.modules():
            # timm starts a residual's last norm at zero, behind which no block would show.
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
                torch.nn.init.normal_(module.running_mean, std=0.1)
    made = planned(twin.plain, reduction=16, divisor=8)
    assert made.after.params == twin.params == sum(part.numel() for part in expected.parameters())
    changed = FxSurgeon((3, 224, 224)).apply(made.network.module.eval(), made.plan)
    changed.load_state_dict(expected.state_dict(), strict=True)
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        answers, given = expected(image), changed(image)
    assert answers.std().item() > 1e-3
    assert (given - answers).abs().max().item() <= 1e-5 * max(1.0, answers.abs().max().item())
