from __future__ import annotations

import csv
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import Train
from sesurgery.training.data.base import Data, Split
from sesurgery.training.evaluation import split_logits
from sesurgery.training.history import Epoch
from sesurgery.training.loop import FitRequest, FitResult, fit
from sesurgery.verification.scores import scores

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def rows(result: FitResult) -> list[dict[str, str]]:
    with result.metrics.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def points(folder: Path, tag: str) -> list[int]:
    events = EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars(tag)]


def test_the_network_learns(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    result = fit(FitRequest(make_net(), data, make_recipe(epochs=12, optimizer={"lr": 0.2}), tmp_path))
    assert result.top1 is not None
    assert result.top1 > 0.8
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss


def test_the_result_is_what_the_scores_say(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    net = make_net()
    result = fit(FitRequest(net, data, make_recipe(), tmp_path))
    found = scores(split_logits(net, data.held_out), data.held_out.labels, data.classes)
    assert result.top1 == found.top1
    assert result.epochs[-1].held_out_loss == pytest.approx(found.loss, abs=1e-6)


def test_an_epoch_is_one_row_of_the_table_and_one_call(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    seen: list[Epoch] = []
    result = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, progress=seen.append))
    assert tuple(seen) == result.epochs
    assert [row["epoch"] for row in rows(result)] == ["1", "2", "3"]
    assert [float(row["held_out_loss"]) for row in rows(result)] == [epoch.held_out_loss for epoch in seen]


def test_the_folder_holds_checkpoint_table_and_events(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    result = fit(FitRequest(make_net(), data, make_recipe(), tmp_path))
    assert (result.checkpoint, result.metrics) == (tmp_path / "last.ckpt", tmp_path / "metrics.csv")
    names = sorted(path.name.split(".tfevents")[0] for path in tmp_path.iterdir())
    assert names == ["best.safetensors", "events.out", "last.ckpt", "metrics.csv", "metrics.jsonl"]
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [asdict(epoch) for epoch in result.epochs]
    assert points(tmp_path, "epoch/held_out_top1") == [6, 12, 18]


def test_a_second_run_hides_the_events_of_the_first(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    fit(FitRequest(make_net(), data, make_recipe(), tmp_path))
    # TensorBoard reads files in the order of their names, which hold the time in seconds.
    time.sleep(1)
    fit(FitRequest(make_net(), data, make_recipe(epochs=1), tmp_path))
    assert points(tmp_path, "epoch/held_out_top1") == [6]


def test_heartbeats_count_batches(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    beats: list[tuple[str, int, int]] = []
    fit(FitRequest(make_net(), data, make_recipe(epochs=1), tmp_path, heartbeat=lambda *beat: beats.append(beat)))
    assert beats == [("train", done, 6) for done in range(1, 7)] + [("evaluate", 1, 1)]


def test_the_rate_warms_up_and_ends_near_zero(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    result = fit(FitRequest(make_net(), data, make_recipe(epochs=4), tmp_path))
    rates = [epoch.lr for epoch in result.epochs]
    assert rates[0] == 0.1
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert rates[-1] < 0.001


def test_the_same_recipe_gives_the_same_weights(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    first, second, other = make_net(), make_net(), make_net()
    fit(FitRequest(first, data, make_recipe(), tmp_path / "1"))
    torch.rand(7)
    fit(FitRequest(second, data, make_recipe(), tmp_path / "2"))
    fit(FitRequest(other, data, make_recipe(seed=1), tmp_path / "3"))
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_every_epoch_has_its_own_order(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    net, first_images = make_net(), []

    def remember(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            first_images.append(inputs[0][0].clone())

    with net.register_forward_pre_hook(remember):
        fit(FitRequest(net, data, make_recipe(), tmp_path))
    starts = first_images[::6]
    assert len(starts) == 3
    assert not any(torch.equal(starts[0], later) for later in starts[1:])


def test_the_callers_state_is_left_as_it_was(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        logger = logging.getLogger("lightning.pytorch")
        return torch.get_rng_state().tolist(), torch.get_num_threads(), logger.level, warnings.filters[:]

    net, before = make_net().eval(), state()
    net[0].train()
    fit(FitRequest(net, data, make_recipe(threads=torch.get_num_threads() + 1), tmp_path))
    assert state() == before
    assert [module.training for module in net] == [True, False, False, False, False, False, False]


def test_nothing_is_printed_and_no_one_warned(
    data: Data,
    make_net: Net,
    make_recipe: Recipe,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    fit(FitRequest(make_net(), data, make_recipe(), tmp_path))
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []


def test_a_model_for_other_classes_is_refused(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE501.*4 classes, the model gives \[10\](.|\n)*num_classes: 4"):
        fit(FitRequest(make_net(classes=10), data, make_recipe(), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_model_for_other_images_is_refused(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    colour = Split(data.held_out.images.expand(-1, 3, -1, -1), data.held_out.labels)
    with pytest.raises(SesurgeryError, match=r"SE501.*images of \[3, 8, 8\]"):
        fit(FitRequest(make_net(), Data(colour, colour, data.classes, ""), make_recipe(), tmp_path))


def test_a_loss_that_is_no_number_ends_training(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    broken = Data(Split(data.train.images * float("nan"), data.train.labels), data.held_out, data.classes, "")
    with pytest.raises(SesurgeryError, match=r"SE502.*loss is nan in epoch 1"):
        fit(FitRequest(make_net(), broken, make_recipe(), tmp_path))
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []


def test_a_held_out_loss_that_is_no_number_ends_training_too(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    images = data.held_out.images.clone()
    images[0] = float("nan")
    broken = Data(data.train, Split(images, data.held_out.labels), data.classes, "")
    with pytest.raises(
        SesurgeryError, match=r"SE502.*the held-out loss is nan in epoch 1.*last.ckpt holds .*before the first epoch"
    ):
        fit(FitRequest(make_net(), broken, make_recipe(), tmp_path))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["sesurgery"]["history"] == []
