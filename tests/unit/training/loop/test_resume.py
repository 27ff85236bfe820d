from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import Train
from sesurgery.training.checkpoint import OWN, read
from sesurgery.training.data.base import Data
from sesurgery.training.evaluation import split_logits
from sesurgery.training.history import CHECKPOINT, Epoch, to_csv
from sesurgery.training.loop import FitRequest, fit

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]


class Stop(Exception):  # noqa: N818
    """Ends training from a callback, as a crash would."""


def crash_in(epoch: int, batch: int) -> Callable[[str, int, int], None]:
    """A heartbeat that crashes at a training batch of an epoch, both counted from 1."""
    begun = 0

    def beat(phase: str, done: int, of: int) -> None:
        nonlocal begun
        begun += phase == "train" and done == 1
        if (phase, begun, done) == ("train", epoch, batch):
            raise Stop

    return beat


def timeless(epochs: tuple[Epoch, ...]) -> list[Epoch]:
    return [replace(epoch, seconds=0) for epoch in epochs]


ALWAYS = 1e-9
"""Minutes between two checkpoints that make one after every batch."""


@pytest.mark.parametrize("minutes", [10.0, ALWAYS], ids=["between epochs", "within one"])
@pytest.mark.parametrize(("epoch", "batch"), [(1, 1), (2, 1), (2, 4), (3, 6)])
def test_a_resumed_run_equals_one_never_stopped(
    epoch: int, batch: int, minutes: float, data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    whole, parts, recipe = make_net(), make_net(), make_recipe(save_minutes=minutes)
    expected = fit(FitRequest(whole, data, recipe, tmp_path / "whole"))
    with pytest.raises(Stop):
        fit(FitRequest(parts, data, recipe, tmp_path / "parts", heartbeat=crash_in(epoch, batch)))
    fresh, batches = make_net(), []
    beat = lambda phase, done, of: batches.append(done) if phase == "train" else None  # noqa: E731
    found = fit(FitRequest(fresh, data, recipe, tmp_path / "parts", resume=True, heartbeat=beat))
    # The crash comes before the batch is saved.
    assert batches[0] == (batch if minutes == ALWAYS else 1)
    assert len(batches) == 6 * (4 - epoch) - batches[0] + 1
    assert timeless(found.epochs) == timeless(expected.epochs)
    assert found.metrics.read_text(encoding="utf-8") == to_csv(found.epochs)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key


def test_tensorboard_shows_every_step_once(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    recipe = make_recipe(epochs=6)
    with pytest.raises(Stop):
        fit(FitRequest(make_net(), data, recipe, tmp_path, heartbeat=crash_in(4, 5)))
    fit(FitRequest(make_net(), data, recipe, tmp_path, resume=True))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("step/lr")] == [10, 20, 30]
    assert [event.step for event in events.Scalars("epoch/train_loss")] == [6, 12, 18, 24, 30, 36]


def test_a_complete_run_returns_at_once_with_its_weights(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    trained, fresh = make_net(), make_net()
    first = fit(FitRequest(trained, data, make_recipe(), tmp_path))
    calls: list[Epoch] = []
    first.metrics.unlink()
    again = fit(FitRequest(fresh, data, make_recipe(), tmp_path, resume=True, progress=calls.append))
    assert (again, calls) == (first, [])
    assert torch.equal(fresh[6].weight, trained[6].weight)
    assert first.metrics.read_text(encoding="utf-8") == to_csv(first.epochs)


def test_a_run_can_be_made_longer(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    fit(FitRequest(make_net(), data, make_recipe(), tmp_path))
    longer = fit(FitRequest(make_net(), data, make_recipe(epochs=5, threads=None), tmp_path, resume=True))
    assert [epoch.epoch for epoch in longer.epochs] == [1, 2, 3, 4, 5]


def test_nothing_to_resume_is_an_error(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE402.*last\.ckpt is missing"):
        fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))


def test_a_checkpoint_of_another_network_is_refused(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    fit(FitRequest(make_net(), data, make_recipe(epochs=1), tmp_path))
    with pytest.raises(SesurgeryError, match=r"SE502.*another network: 0\.weight is \(4, 1.*and 3 more") as caught:
        fit(FitRequest(make_net(width=8), data, make_recipe(), tmp_path, resume=True))
    assert "(8, 1, 3, 3) here" in str(caught.value)


def test_a_checkpoint_of_another_recipe_is_refused(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    fit(FitRequest(make_net(), data, make_recipe(epochs=1), tmp_path))
    with pytest.raises(SesurgeryError, match=r"SE502.*batch_size was 16, is 8, optimizer\.lr was 0\.1, is 0\.3"):
        fit(FitRequest(make_net(), data, make_recipe(batch_size=8, optimizer={"lr": 0.3}), tmp_path, resume=True))


def test_a_checkpoint_of_another_spec_is_refused_by_digest(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    given = FitRequest(make_net(), data, make_recipe(epochs=1), tmp_path, spec_digest="a" * 64)
    fit(given)
    with pytest.raises(SesurgeryError, match=r"SE502.*of another spec: its digest is aaaaaaaaaaaa…, .* bbbbbbbbbbbb…"):
        fit(replace(given, resume=True, spec_digest="b" * 64))
    assert fit(replace(given, resume=True)).epochs
    # Checkpoints of earlier versions have none.
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del saved[OWN]["spec_digest"]
    torch.save(saved, tmp_path / CHECKPOINT)
    assert fit(replace(given, resume=True, spec_digest="b" * 64)).epochs


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"], ids=["empty", "text"])
def test_a_damaged_checkpoint_is_refused(
    content: bytes, data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(SesurgeryError, match=r"SE502.*cannot be read as a training checkpoint"):
        fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))


def test_a_foreign_checkpoint_is_refused(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(SesurgeryError, match=r"SE502.*cannot be read as a training checkpoint"):
        fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("owned"),)


def test_a_checkpoint_that_carries_code_does_not_run_it(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Payload()}, tmp_path / "last.ckpt")
    with pytest.raises(SesurgeryError, match="SE502"):
        fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))
    assert not (tmp_path / "owned").exists()


def test_an_epoch_goes_on_in_smaller_batches_of_as_many_samples_a_step(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        fit(FitRequest(make_net(), data, make_recipe(save_minutes=ALWAYS), tmp_path, heartbeat=crash_in(2, 4)))
    batches: list[tuple[int, int]] = []
    beat = lambda phase, done, of: batches.append((done, of)) if phase == "train" else None  # noqa: E731
    smaller = make_recipe(batch_size=4, accumulate=4)
    result = fit(FitRequest(make_net(), data, smaller, tmp_path, resume=True, heartbeat=beat))
    assert (batches[0], len(batches)) == ((13, 24), 12 + 24)
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3]


def test_gradients_of_half_a_step_are_in_no_checkpoint(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = make_recipe(save_minutes=ALWAYS, accumulate=4)
    with pytest.raises(Stop):
        fit(FitRequest(make_net(), data, recipe, tmp_path, heartbeat=crash_in(1, 6)))
    saved = read(tmp_path / "last.ckpt").partial
    assert saved is not None
    assert saved.batches == 4


def test_the_best_epoch_is_kept_and_given_where_it_is_asked_for(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    net = make_net()
    # A rate that makes it worse again.
    recipe = make_recipe(keep="best", optimizer={"lr": 3.0, "warmup_epochs": 0}, epochs=4)
    result = fit(FitRequest(net, data, recipe, tmp_path))
    top1 = [epoch.held_out_top1 for epoch in result.epochs]
    right = split_logits(net, data.held_out).argmax(1) == data.held_out.labels
    assert result.top1 == max(top1) == int(right.sum()) / len(right)
    again = make_net()
    assert fit(FitRequest(again, data, recipe, tmp_path, resume=True)) == result
    assert torch.equal(again[6].weight, net[6].weight)
