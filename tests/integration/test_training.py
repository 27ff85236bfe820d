"""Training as a user meets it: real data, a real network, a real ^C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from fixtures.sharing import Once

from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.spec.plugins import Catalogs
from sesurgery.spec.train import Train
from sesurgery.training import checkpoint
from sesurgery.training.data import DATASETS
from sesurgery.training.data.digits import Digits
from sesurgery.training.evaluation import split_logits
from sesurgery.training.history import Epoch
from sesurgery.training.loop import FitResult, fit

pytestmark = pytest.mark.slow

SHAPE = (1, 16, 16)
EPOCHS = 3
HANGS = 600
"""Seconds after which a process is taken to hang, on however busy a machine."""


def recipe(save_minutes: float = 10.0) -> Train:
    given = {"epochs": EPOCHS, "batch_size": 64, "threads": 1, "save_minutes": save_minutes}
    return Train.model_validate(given, context=Catalogs(DATASETS, DATASETS, DATASETS, DATASETS))


def network() -> CifarResNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CifarResNet(8, in_channels=SHAPE[0])


def train(folder: Path, *, resume: bool = False) -> tuple[FitResult, CifarResNet]:
    model = network()
    return fit(model, Digits().load(SHAPE), recipe(), folder, resume=resume), model


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


CHILD = """
import os
import sys
from pathlib import Path
from test_training import Digits, SHAPE, fit, network, recipe

press, epoch, batch = (sys.argv[2], int(sys.argv[3]), int(sys.argv[4])) if len(sys.argv) > 2 else (None, 0, 0)
begun = 0

def beat(phase, done, of):
    global begun
    begun += (phase, done) == ("train", 1)
    if (phase, done, begun) == (press, batch, epoch):
        # It waits here: however busy the machine is, the signal comes at this batch.
        print("now", flush=True)
        sys.stdin.readline()

wanted = recipe(1e-9 if press else 10.0)
result = fit(network(), Digits().load(SHAPE), wanted, Path(sys.argv[1]), heartbeat=beat)
# One write, so that two processes on one pipe do not mix their words.
os.write(1, f"returned {result.interrupted} {len(result.epochs)}{os.linesep}".encode())
"""


def environment() -> dict[str, str]:
    """The environment of a process that can import this file."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def interrupt(
    folder: Path, epoch: int, phase: str, batch: int = 1, number: int = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """Run the training in a process of its own and send it a signal at a batch of a phase of an epoch."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), phase, str(epoch), str(batch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # A test run in the background passes an ignored SIGINT on to its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    if child.stdout.readline() == "now\n":
        child.send_signal(number)
    out, err = child.communicate(None if number == signal.SIGKILL else "on\n", timeout=HANGS)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


@dataclass(frozen=True)
class Press:
    """When ^C comes, and how many epochs are done by then."""

    epoch: int
    phase: str
    done: int


PRESSES = [Press(1, "train", 0), Press(2, "train", 1), Press(2, "evaluate", 2)]


@pytest.mark.parametrize("press", PRESSES, ids=lambda press: f"{press.phase} of epoch {press.epoch}")
def test_a_run_stopped_by_sigint_resumes_to_what_it_would_have_been(
    press: Press, whole: tuple[FitResult, CifarResNet], tmp_path: Path
) -> None:
    child = interrupt(tmp_path, press.epoch, press.phase)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.splitlines()[-1] == f"returned True {press.done}"
    resumed, model = train(tmp_path, resume=True)
    assert timeless(resumed.epochs) == timeless(whole[0].epochs)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in whole[1].state_dict().items())
    assert len(resumed.metrics.read_text(encoding="utf-8").splitlines()) == 1 + EPOCHS


def test_a_run_killed_within_an_epoch_resumes_there_to_what_it_would_have_been(
    whole: tuple[FitResult, CifarResNet], tmp_path: Path
) -> None:
    """`python benchmarks/kill_and_resume.py` does so at twenty random moments."""
    assert interrupt(tmp_path, 2, "train", 5, signal.SIGKILL).returncode == -signal.SIGKILL
    saved = checkpoint.read(tmp_path / "last.ckpt")
    assert saved.partial is not None
    assert (len(saved.history), saved.partial.batches) == (1, 4)
    resumed, model = train(tmp_path, resume=True)
    assert timeless(resumed.epochs) == timeless(whole[0].epochs)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in whole[1].state_dict().items())


GRADIENTS = """
import sys
from pathlib import Path

import torch
from torch import nn
from test_training import Digits, SHAPE, fit, recipe

torch.manual_seed(0)
# No norm, whose statistics are of a process's own samples, and nothing random.
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 10))
gradients, step = [], torch.optim.SGD.step

def keeping(self, closure):
    # What DDP has made of all processes' gradients is there after the closure.
    loss = closure()
    gradients.append([weight.grad.clone() for weight in model.parameters()])
    return step(self, lambda: loss)

torch.optim.SGD.step = keeping
plain = recipe().model_copy(update={"epochs": 1})
result = fit(model, Digits(held_out=0.8).load(SHAPE), plain, Path(sys.argv[1]))
torch.save(gradients, Path(sys.argv[1]) / "gradients.pt")
"""


def test_two_processes_with_half_a_batch_have_the_gradients_of_one(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(GRADIENTS, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for command, folder in ([sys.executable], "one"), (torchrun, "two"):
        (tmp_path / folder).mkdir()
        child = subprocess.run(
            [*command, str(script), str(tmp_path / folder)],
            capture_output=True,
            text=True,
            env=environment() | {"OMP_NUM_THREADS": "1"},
            timeout=HANGS,
            check=False,
        )
        assert child.returncode == 0, child.stderr
    one, two = (torch.load(tmp_path / folder / "gradients.pt") for folder in ("one", "two"))
    assert len(one) == len(two) == 5
    for ours, theirs in zip(one, two, strict=True):
        for gradient, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


def test_two_processes_share_one_run(whole: tuple[FitResult, CifarResNet], tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    child = subprocess.run(
        [*torchrun, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        timeout=HANGS,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == [f"returned False {EPOCHS}"] * 2
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
        result = fit(network(), Digits().load(SHAPE), longer, tmp_path / "longer", resume=True)
        assert result.top1 is not None
        if result.top1 > 0.9:
            return
    pytest.fail(f"after {4 * EPOCHS} epochs it reads {result.top1:.1%}")
