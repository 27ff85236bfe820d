"""The command line in several processes, as docs/many_processes.md has it: gloo on CPUs, one run, one writer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.processes import HANGS, Own
from fixtures.tiny import RUN, SPEC

from sesurgery import pipeline
from sesurgery.artifacts import digest_file
from sesurgery.networks import checkpoint
from sesurgery.training.history import epochs_done
from sesurgery.training.machine import first_alone

EPOCHS = 2


class Stop(Exception):  # noqa: N818
    """Ends a training after an epoch, as a crash would."""


@pytest.fixture
def applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was not trained yet, below the current folder: few samples, two short epochs."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(
        SPEC.replace("held_out: 0.1", "held_out: 0.9").replace("epochs: 4", f"epochs: {EPOCHS}")
    )
    return pipeline.apply(pipeline.load_spec("tiny.yaml"), pipeline.Workspace(), "tiny.yaml").folder


def stop_after_an_epoch() -> None:
    def stop(epoch: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        pipeline.train(pipeline.TrainRequest(RUN, watch=stop))
    assert epochs_done(RUN / "train") == 1


def as_torchrun(folder: Path, rank: int, port: int) -> None:
    """Into the environment of a process, what torchrun puts there."""
    number, two = str(rank), "2"
    os.environ.update(RANK=number, LOCAL_RANK=number, WORLD_SIZE=two, LOCAL_WORLD_SIZE=two, GROUP_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="of-this-test")
    os.chdir(folder)


def program(folder: Path, rank: int, port: int, arguments: tuple[str, ...]) -> None:
    from sesurgery.cli import main

    as_torchrun(folder, rank, port)
    sys.argv = ["sesurgery", *arguments]
    main()


def in_turn(folder: Path, rank: int, port: int) -> None:
    as_torchrun(folder, rank, port)
    for block in range(2):
        with first_alone() as first, Path("order").open("a", encoding="utf-8") as order:
            if first:
                # The other one would be there long before.
                time.sleep(0.3)
            order.write(f"{block} {rank} {first}\n")
    # The first process holds what the others wait for: without an agent of torchrun it must not end before them.
    while rank == 0 and len(Path("order").read_text(encoding="utf-8").splitlines()) < 4:
        time.sleep(0.01)


def on_two_ranks(target: object, *arguments: object) -> list[Own]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
    ranks = [Own(target, Path.cwd(), rank, port, *arguments) for rank in range(2)]
    for process in ranks:
        assert process.end() == 0, process.err
    return ranks


def test_the_first_process_is_alone_until_it_leaves_the_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    on_two_ranks(in_turn)
    lines = Path("order").read_text(encoding="utf-8").split("\n")[:-1]
    assert sorted(lines) == ["0 0 True", "0 1 False", "1 0 True", "1 1 False"]
    assert lines.index("0 0 True") < lines.index("0 1 False")
    assert lines.index("1 0 True") < lines.index("1 1 False")
    with first_alone() as first:
        assert first


def test_two_ranks_train_one_run_and_the_first_alone_speaks(applied):
    before = digest_file(RUN / "weights.safetensors")
    first, other = on_two_ranks(program, ("train", RUN.as_posix()))
    assert digest_file(RUN / "applied.safetensors") == before != digest_file(RUN / "weights.safetensors")
    details = checkpoint.read(RUN, pipeline.catalogs()).manifest.details
    assert (details.epochs, details.applied) == (EPOCHS, before)
    assert first.err.count("epoch ") == EPOCHS
    assert "epoch " not in other.err


def test_two_ranks_go_on_with_what_one_process_has_begun(applied):
    stop_after_an_epoch()
    first, _ = on_two_ranks(program, ("train", RUN.as_posix(), "--resume"))
    assert first.err.count("epoch ") == EPOCHS - 1
    assert checkpoint.read(RUN, pipeline.catalogs()).manifest.details.epochs == EPOCHS


def test_two_ranks_begin_again(applied):
    stop_after_an_epoch()
    first, _ = on_two_ranks(program, ("train", RUN.as_posix(), "--restart"))
    assert first.err.count("epoch ") == EPOCHS
    assert checkpoint.read(RUN, pipeline.catalogs()).manifest.details.epochs == EPOCHS


@pytest.mark.slow
def test_torchrun_starts_the_program_and_resumes_a_run(applied):
    stop_after_an_epoch()
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sesurgery"]
    child = subprocess.run(
        [*run, "train", RUN.as_posix(), "--resume"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=HANGS,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr.count("held-out top-1") == EPOCHS - 1
    assert checkpoint.read(RUN, pipeline.catalogs()).manifest.details.epochs == EPOCHS
