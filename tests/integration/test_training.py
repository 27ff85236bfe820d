"""Training as a user meets it: real data, a real network, a real ^C."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from fixtures.processes import HANGS, Own, pipe
from fixtures.sharing import Once
from torch import nn

from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.spec.plugins import Catalogs
from sesurgery.spec.train import Train
from sesurgery.training import checkpoint
from sesurgery.training.data import DATASETS
from sesurgery.training.data.digits import Digits
from sesurgery.training.evaluation import split_logits
from sesurgery.training.history import Epoch
from sesurgery.training.loop import FitRequest, FitResult, fit

pytestmark = pytest.mark.slow

SHAPE = (1, 8, 8)
EPOCHS = 3


def recipe(save_minutes: float = 10.0) -> Train:
    given = {"epochs": EPOCHS, "batch_size": 64, "threads": 1, "save_minutes": save_minutes}
    return Train.model_validate(given, context=Catalogs(DATASETS, DATASETS, DATASETS, DATASETS))


def network() -> CifarResNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CifarResNet(8, in_channels=SHAPE[0])


def train(folder: Path, *, resume: bool = False) -> tuple[FitResult, CifarResNet]:
    model = network()
    return fit(FitRequest(model, Digits().load(SHAPE), recipe(), folder, resume=resume)), model


def timeless(epochs: tuple[Epoch, ...]) -> list[Epoch]:
    return [replace(epoch, seconds=0) for epoch in epochs]


@pytest.fixture(scope="module")
def run(once: Once) -> Path:
    """The folder of a training that was never stopped. Not to be changed."""
    return once("whole", lambda: train(Path()))


@pytest.fixture(scope="module")
def whole(run: Path) -> tuple[FitResult, CifarResNet]:
    # One that is complete is returned as it is.
    return train(run, resume=True)


@dataclass(frozen=True)
class Press:
    """When a signal comes, and how many epochs are done by then."""

    epoch: int
    phase: str
    done: int
    batch: int = 1


def trains(folder: Path, press: Press, line: Connection) -> None:
    """In a process of its own: the training, which waits for the signal where it is to come."""
    begun = 0

    def beat(phase: str, done: int, of: int) -> None:
        nonlocal begun
        begun += (phase, done) == ("train", 1)
        if (phase, done, begun) == (press.phase, press.batch, press.epoch):
            # However busy the machine is, the signal comes at this batch.
            line.send("now")
            line.recv()

    result = fit(FitRequest(network(), Digits().load(SHAPE), recipe(1e-9), folder, heartbeat=beat))
    print(f"returned {result.interrupted} {len(result.epochs)}", flush=True)


def interrupt(folder: Path, press: Press, number: int = signal.SIGINT) -> Own:
    """Run the training in a process of its own and send it a signal at a batch of a phase of an epoch."""
    ours, theirs = pipe()
    process = Own(trains, folder, press, theirs)
    theirs.close()
    assert ours.poll(HANGS)
    assert ours.recv() == "now"
    process.send(number)
    if number != signal.SIGKILL:
        ours.send("on")
    return process


PRESSES = [Press(1, "train", 0), Press(2, "train", 1), Press(2, "evaluate", 2)]


@pytest.mark.parametrize("press", PRESSES, ids=lambda press: f"{press.phase} of epoch {press.epoch}")
def test_a_run_stopped_by_sigint_resumes_to_what_it_would_have_been(
    press: Press, whole: tuple[FitResult, CifarResNet], tmp_path: Path
) -> None:
    child = interrupt(tmp_path, press)
    assert (child.end(), child.err) == (0, "")
    assert child.out.splitlines()[-1] == f"returned True {press.done}"
    resumed, model = train(tmp_path, resume=True)
    assert timeless(resumed.epochs) == timeless(whole[0].epochs)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in whole[1].state_dict().items())
    assert len(resumed.metrics.read_text(encoding="utf-8").splitlines()) == 1 + EPOCHS


def test_a_run_killed_within_an_epoch_resumes_there_to_what_it_would_have_been(
    whole: tuple[FitResult, CifarResNet], tmp_path: Path
) -> None:
    """`python benchmarks/kill_and_resume.py` does so at twenty random moments."""
    assert interrupt(tmp_path, Press(2, "train", 1, batch=5), signal.SIGKILL).end() == -signal.SIGKILL
    saved = checkpoint.read(tmp_path / "last.ckpt")
    assert saved.partial is not None
    assert (len(saved.history), saved.partial.batches) == (1, 4)
    resumed, model = train(tmp_path, resume=True)
    assert timeless(resumed.epochs) == timeless(whole[0].epochs)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in whole[1].state_dict().items())


def gradients(folder: Path, given: dict[str, str]) -> None:
    """In a process of its own: one epoch, and the gradients of every step. `given` is what torchrun puts into the
    environment of a process.
    """
    os.environ.update(given)
    torch.manual_seed(0)
    # No norm, whose statistics are of a process's own samples, and nothing random.
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    found, step = [], torch.optim.SGD.step

    def keeping(self: torch.optim.SGD, closure: Callable[[], float]) -> float:
        # What DDP has made of all processes' gradients is there after the closure.
        loss = closure()
        found.append([weight.grad.clone() for weight in model.parameters()])
        return step(self, lambda: loss)

    torch.optim.SGD.step = keeping
    plain = recipe().model_copy(update={"epochs": 1})
    fit(FitRequest(model, Digits(held_out=0.8).load(SHAPE), plain, folder))
    torch.save(found, folder / "gradients.pt")


def as_torchrun(rank: int, port: int) -> dict[str, str]:
    number, two, run = str(rank), "2", "of-this-test"
    ranks = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": two, "LOCAL_WORLD_SIZE": two, "GROUP_RANK": "0"}
    return {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": run}


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def test_two_processes_with_half_a_batch_have_the_gradients_of_one(tmp_path: Path) -> None:
    port = free_port()
    environments = {"one": {}, "two": as_torchrun(0, port), "other": as_torchrun(1, port)}
    for name in environments:
        (tmp_path / name).mkdir()
    for process in [Own(gradients, tmp_path / name, given) for name, given in environments.items()]:
        assert process.end() == 0, process.err
    one, two = (torch.load(tmp_path / folder / "gradients.pt") for folder in ("one", "two"))
    assert len(one) == len(two) == 5
    for ours, theirs in zip(one, two, strict=True):
        for gradient, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


def shares(folder: Path, given: dict[str, str]) -> None:
    os.environ.update(given)
    result = fit(FitRequest(network(), Digits().load(SHAPE), recipe(), folder))
    print(f"returned {result.interrupted} {len(result.epochs)}")


def test_two_processes_share_one_run(whole: tuple[FitResult, CifarResNet], tmp_path: Path) -> None:
    """`test_many_processes.py` has torchrun itself start them."""
    port = free_port()
    for process in [Own(shares, tmp_path, as_torchrun(rank, port)) for rank in range(2)]:
        assert process.end() == 0, process.err
        assert process.out.splitlines() == [f"returned False {EPOCHS}"]
    result, model = train(tmp_path, resume=True)
    assert [epoch.lr for epoch in result.epochs] == [epoch.lr for epoch in whole[0].epochs]
    held_out = Digits().load(SHAPE).held_out
    right = split_logits(model, held_out).argmax(1) == held_out.labels
    assert result.top1 == int(right.sum()) / len(held_out)


def test_the_network_learns_the_digits(run: Path, tmp_path: Path) -> None:
    """Within four times the epochs: how many it takes hangs on the processor's rounding."""
    shutil.copytree(run, tmp_path / "longer")
    for epochs in range(EPOCHS, 4 * EPOCHS + 1):
        longer = recipe().model_copy(update={"epochs": epochs})
        result = fit(FitRequest(network(), Digits().load(SHAPE), longer, tmp_path / "longer", resume=True))
        assert result.top1 is not None
        if result.top1 > 0.9:
            return
    pytest.fail(f"after {4 * EPOCHS} epochs it reads {result.top1:.1%}")
