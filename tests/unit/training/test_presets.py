"""Whole recipes by name: what they say, what goes before them, and that each trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import Train
from sesurgery.training.data.base import Data, Split
from sesurgery.training.data.reading.images import Arrays, Stored
from sesurgery.training.loop import FitRequest, fit
from sesurgery.training.preprocessing import Preprocessing
from sesurgery.training.presets import PRESETS

Net = Callable[..., nn.Module]
PAGE = Path(__file__).parents[3] / "docs" / "spec.md"


def recipe(**given: object) -> Train:
    data = {"version": 1, "model": {"source": "timm", "name": "resnet18"}, "input": {"shape": [3, 32, 32]}}
    return pipeline.load_spec({**data, "surgery": [{"insert": "se", "at": "residual"}], "train": given}).train


def spec(train: str) -> str:
    return f"""version: 1
model: {{source: timm, name: resnet18}}
input: {{shape: [3, 32, 32]}}
surgery: [{{insert: se, at: residual}}]
train:
{train}"""


def load(text: str, folder: Path) -> Train:
    file = folder / "net.yaml"
    file.write_text(text, encoding="utf-8")
    return pipeline.load_spec(file).train


@pytest.fixture(scope="module")
def images() -> Data:
    def split(samples: int, seed: int) -> Split:
        random = np.random.default_rng(seed)
        pixels, labels = random.integers(0, 255, (samples, 8, 8)).astype(np.uint8), random.integers(0, 4, samples)
        prepare = Preprocessing("L", 1, (8, 8), None, 1 / 255, (0.35,), (0.2,))
        return Split(Stored(Arrays(pixels, labels), np.arange(samples), prepare), torch.from_numpy(labels))

    return Data(split(32, 0), split(16, 1), ("a", "b", "c", "d"), "made for the tests")


@pytest.mark.parametrize("name", PRESETS.names())
def test_every_preset_trains(name: str, images: Data, make_net: Net, tmp_path: Path) -> None:
    wanted = recipe(preset=name, epochs=2, batch_size=16, threads=1)
    net = make_net()
    before = copy.deepcopy(net)
    result = fit(FitRequest(net, images, wanted, tmp_path, blocks=["0"], teacher=before))
    assert len(result.epochs) == 2
    assert not torch.equal(net[6].weight, before[6].weight)


@pytest.mark.parametrize("name", PRESETS.names())
def test_the_page_says_what_a_preset_holds(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"<!-- table: preset: {name} -->")[1].split("\n#")[0]
    preset = PRESETS.load(name)()
    values = {"epochs": preset.epochs, "batch_size": preset.batch_size}
    values |= preset.values(preset.epochs, preset.batch_size)
    assert yaml.safe_load(section.split("```yaml\n")[1].split("```")[0]) == {"train": values}


def test_what_the_spec_says_goes_before_the_preset(tmp_path: Path) -> None:
    text = "  preset: timm_a2\n  batch_size: 512\n  augment: {repeats: 1}\n  ema: {decay: 0.99}\n"
    found = load(spec(text), tmp_path)
    assert (found.epochs, found.batch_size, found.optimizer.name, found.optimizer.lr) == (300, 512, "lamb", 0.0025)
    assert found.augment is not None
    assert (found.augment.repeats, found.augment.mixup) == (1, 0.1)
    assert found.ema is not None


def test_another_optimiser_brings_none_of_the_options_of_the_preset(tmp_path: Path) -> None:
    found = load(spec("  preset: timm_a2\n  optimizer: {name: sgd}\n  augment: null\n"), tmp_path)
    assert (found.optimizer.lr, found.optimizer.weight_decay, found.augment) == (0.1, 5e-4, None)


def test_drops_and_rates_follow_epochs_and_batches(tmp_path: Path) -> None:
    found = load(spec("  {preset: se_paper, epochs: 10, batch_size: 64, accumulate: 4}"), tmp_path)
    assert found.schedule is not None
    assert (found.schedule.decay_epochs, found.optimizer.lr) == (3.0, 0.15)


def test_a_spec_that_is_written_out_loads_to_the_same(tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    file.write_text(spec("  preset: blocks_first\n"), encoding="utf-8")
    first = pipeline.load_spec(file)
    (tmp_path / "again.yaml").write_text(first.text(), encoding="utf-8")
    again = pipeline.load_spec(tmp_path / "again.yaml")
    assert again.train == first.train
    assert first.with_({"train.freeze.epochs": 5}).train.freeze.epochs == 5


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("  preset: timm_a9\n", r"net\.yaml:6:11: error\[SE105\]: unknown preset 'timm_a9'"),
        ("  preset: {preset: timm_a1, often: 2}\n", r"net\.yaml:6:29: error\[SE101\]: unknown key 'often'"),
        ("  {preset: fine_tune, optimizer: {lrr: 1}}\n", r"net\.yaml:6:35: error\[SE101\]: unknown key 'lrr'"),
        ("  {preset: fine_tune, epochs: none}\n", r"net\.yaml:6:31: error\[SE103\]: expected an integer"),
    ],
)
def test_a_mistake_is_shown_in_its_place(train: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=message):
        load(spec(train), tmp_path)
