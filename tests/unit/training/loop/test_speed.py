"""What makes training faster changes what is computed only as far as it says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from sesurgery.blocks.se import SE
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import Train
from sesurgery.training.batches import Batch, Shuffled
from sesurgery.training.data.base import Data
from sesurgery.training.loop import FitRequest, fit
from sesurgery.training.loop.module import Classifier
from sesurgery.training.loop.speed import with_workers

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]


class Watching(nn.Module):
    """A block that notes in which types it was called and computed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(4, 4)
        self.seen: set[tuple[torch.dtype, torch.dtype]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.weight(x.mean((2, 3))).sigmoid()
        self.seen.add((x.dtype, gate.dtype))
        return x * gate[..., None, None]


def losses(data: Data, net: nn.Module, recipe: Train, folder: Path, **options: object) -> list[float]:
    return [epoch.train_loss for epoch in fit(FitRequest(net, data, recipe, folder, **options)).epochs]


@pytest.mark.parametrize("ema", [None, {"decay": 0.9}], ids=["plain", "averaged"])
def test_gates_stay_in_fp32_where_the_rest_is_in_bf16(
    ema: object, data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    conv, *rest = make_net()
    block, after, types = Watching(), nn.Identity(), set()
    after.register_forward_hook(lambda module, given, output: types.add(output.dtype))
    net = nn.Sequential(conv, block, after, *rest)
    recipe = make_recipe(precision="bf16", ema=ema, epochs=1)
    found = losses(data, net, recipe, tmp_path, blocks=["1"])
    assert block.seen == {(torch.float32, torch.float32)}
    # The map goes on in bf16; in fp32 it was looked at before training.
    assert torch.bfloat16 in types
    assert "forward" not in vars(block)
    conv, *rest = make_net()
    plain = losses(
        data, nn.Sequential(conv, nn.Identity(), nn.Identity(), *rest), make_recipe(epochs=1), tmp_path / "2"
    )
    assert found == pytest.approx(plain, rel=0.5)


def test_channels_last_gives_the_same_losses(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    recipe = make_recipe(channels_last=True, optimizer={"lr": 0.01})
    found = losses(data, make_net(), recipe, tmp_path / "last")
    plain = losses(data, make_net(), make_recipe(optimizer={"lr": 0.01}), tmp_path / "first")
    assert found == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_loss_curve_on_twenty_steps(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_se() -> nn.Module:
        # Compiled code draws other random numbers, so there is no dropout.
        conv, *rest = (module for module in make_net() if not isinstance(module, nn.Dropout))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return nn.Sequential(conv, SE(reduction=2, min_width=2, init="identity").build(4), *rest)

    steps: list[float] = []
    step = Classifier.training_step

    def noted(module: Classifier, batch: Batch, index: int) -> torch.Tensor:
        loss = step(module, batch, index)
        steps.append(loss.item())
        return loss

    monkeypatch.setattr(Classifier, "training_step", noted)
    given = {"epochs": 4, "batch_size": 19, "optimizer": {"lr": 0.01}}
    by_epoch = losses(data, with_se(), make_recipe(compile=True, **given), tmp_path / "compiled")
    compiled = steps.copy()
    steps.clear()
    assert by_epoch == pytest.approx(losses(data, with_se(), make_recipe(**given), tmp_path / "plain"), rel=1e-4)
    assert len(set(steps)) == 20
    assert compiled == pytest.approx(steps, rel=1e-4)


def test_a_compiled_network_is_what_a_step_calls(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    def compile_(network: nn.Module) -> Callable[..., torch.Tensor]:
        compiled.append(network)
        return lambda images: network(images)

    monkeypatch.setattr(torch, "compile", compile_)
    net = make_net()
    fit(FitRequest(net, data, make_recipe(compile=True, epochs=1), tmp_path))
    assert compiled == [net]


def test_fp16_without_a_gpu_is_refused(data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SesurgeryError, match=r"SE502.*fp16 needs a GPU"):
        fit(FitRequest(make_net(), data, make_recipe(precision="fp16"), tmp_path))


@pytest.mark.parametrize("other", [{"compile": True}, {"precision": "bf16"}])
def test_fused_operations_are_their_own(other: dict[str, object], make_recipe: Recipe) -> None:
    with pytest.raises(ValidationError, match="'fused' has operations of its own"):
        make_recipe(fused=True, **other)


class Timed(Shuffled):
    """Batches that take a time by a clock of their own, which falls with the number of processes."""

    clock, seconds = 0.0, (1.0, 0.5, 0.45, 0.1)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in itertools.repeat(None, 20):
            Timed.clock += self.seconds[min(self.workers, 2)]
            yield torch.zeros(1), torch.zeros(1)


def test_processes_are_added_while_they_read_faster(
    data: Data, make_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: Timed.clock)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    recipe, rates = with_workers(make_recipe(workers="auto"), Timed(data.train, 8, 0))
    assert rates == pytest.approx({0: 1.0, 1: 2.0, 2: 1 / 0.45, 4: 1 / 0.45})
    assert recipe.workers == 2
    assert with_workers(make_recipe(workers=3), Timed(data.train, 8, 0))[1] == {}


def test_a_training_finds_its_number_of_processes(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    found = losses(data, make_net(), make_recipe(workers="auto", epochs=1), tmp_path / "auto")
    assert found == losses(data, make_net(), make_recipe(epochs=1), tmp_path / "none")
