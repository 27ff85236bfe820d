from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sesurgery.spec.train import Train
from sesurgery.training.checkpoint import read
from sesurgery.training.data.base import Data
from sesurgery.training.loop import FitRequest, FitResult, fit
from sesurgery.training.loop.interruption import Interruption

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]
Beat = Callable[[str, int, int], None]


def press_in(epoch: int, phase: str, times: int = 1, number: int = signal.SIGINT) -> Beat:
    """A heartbeat that presses ^C, or sends another signal, at the first batch of a phase of an epoch."""
    begun = 0

    def beat(now: str, done: int, of: int) -> None:
        nonlocal begun
        begun += now == "train" and done == 1
        if (now, begun, done) == (phase, epoch, 1):
            for _ in range(times):
                signal.raise_signal(number)

    return beat


@pytest.fixture(autouse=True)
def _handler_as_before() -> object:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def test_in_the_first_epoch_it_leaves_a_checkpoint_to_resume_from(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    stopped = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=press_in(1, "train")))
    assert stopped == FitResult((), signal.SIGINT, tmp_path / "last.ckpt", tmp_path / "metrics.csv")
    assert stopped.top1 is None
    resumed = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))
    assert [epoch.epoch for epoch in resumed.epochs] == [1, 2, 3]
    assert not resumed.interrupted


def test_within_an_epoch_the_batches_that_are_done_are_kept(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    net = make_net()
    stopped = fit(FitRequest(net, data, make_recipe(), tmp_path, heartbeat=press_in(2, "train")))
    assert (len(stopped.epochs), stopped.interrupted) == (1, True)
    saved = read(stopped.checkpoint)
    assert torch.equal(net[0].weight, saved.weights["0.weight"])
    assert saved.partial is not None
    assert saved.partial.batches == 1


def test_during_evaluation_the_epoch_is_finished_first(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    stopped = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=press_in(2, "evaluate")))
    assert (len(stopped.epochs), stopped.interrupted) == (2, True)


def test_in_the_last_moment_nothing_is_lost_and_it_is_said(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    stopped = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=press_in(3, "evaluate")))
    assert (len(stopped.epochs), stopped.interrupted) == (3, True)


@pytest.mark.parametrize(("phase", "finished"), [("train", 1), ("evaluate", 1)])
def test_the_second_one_stops_at_once(
    phase: str, finished: int, data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    stopped = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=press_in(2, phase, times=2)))
    assert (len(stopped.epochs), stopped.interrupted) == (finished, True)
    resumed = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))
    assert len(resumed.epochs) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_another_signal_that_ends_processes_does_what_control_c_does(
    number: int, phase: str, data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    stopped = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=press_in(2, phase, number=number)))
    assert (len(stopped.epochs), stopped.signal) == (1 if phase == "train" else 2, number)
    resumed = fit(FitRequest(make_net(), data, make_recipe(), tmp_path, resume=True))
    assert len(resumed.epochs) == 3


def test_nothing_is_printed(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=press_in(1, "train", times=2)))
    assert capfd.readouterr() == ("", "")


def test_an_exit_asked_for_by_a_callback_is_not_swallowed(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    def leave(phase: str, done: int, of: int) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        fit(FitRequest(make_net(), data, make_recipe(), tmp_path, heartbeat=leave))
    assert caught.value.code == 3


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption().listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_that_cannot_take_signals_trains_all_the_same(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    results: list[FitResult] = []
    thread = threading.Thread(
        target=lambda: results.append(fit(FitRequest(make_net(), data, make_recipe(epochs=1), tmp_path)))
    )
    thread.start()
    thread.join()
    assert [len(result.epochs) for result in results] == [1]
