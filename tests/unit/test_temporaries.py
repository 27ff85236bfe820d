"""What killed processes leave is told from what living ones write."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from sesurgery import temporaries

FORK = multiprocessing.get_context("fork")


def _write(folder: Path, started) -> None:
    with temporaries.file(folder / "x.onnx"), temporaries.folder(folder / "y.plan") as aside:
        (aside / "half").write_text("half")
        started.set()
        signal.pause()


@contextlib.contextmanager
def writer(folder: Path):
    """Another process that is in the middle of writing a file and a folder."""
    started = FORK.Event()
    process = FORK.Process(target=_write, args=(folder, started))
    process.start()
    assert started.wait(20)
    try:
        yield process
    finally:
        process.kill()
        process.join(20)


def test_what_a_killed_process_leaves_is_removed(tmp_path):
    with writer(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        assert len(list(tmp_path.iterdir())) == 2
        assert len(temporaries.sweep(tmp_path)) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_writes_stays(tmp_path):
    with writer(tmp_path):
        assert temporaries.sweep(tmp_path) == ()
        assert len(list(tmp_path.iterdir())) == 2


def test_a_zombie_writes_no_more(tmp_path):
    with writer(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert len(temporaries.sweep(tmp_path)) == 2


@pytest.mark.parametrize(
    "name",
    [
        ".x.onnx.000000-999999999-1.abcdefgh.tmp",  # of another machine
        ".x.onnx.abcdefgh.tmp",
        "x.onnx",
        ".lock",
    ],
)
def test_what_is_not_known_to_be_left_behind_stays(name, tmp_path):
    (tmp_path / name).write_text("")
    assert temporaries.sweep(tmp_path) == ()
    assert (tmp_path / name).exists()


def test_a_later_process_with_the_same_number_is_another_one(tmp_path):
    with temporaries.file(tmp_path / "x") as path:
        earlier = path.with_name(path.name.replace(f"-{temporaries.started_at(os.getpid())}.", "-12."))
        earlier.write_text("")
        assert temporaries.sweep(tmp_path) == (earlier,)
        assert path.exists()


def test_a_folder_that_is_not_there_is_clean(tmp_path):
    assert temporaries.sweep(tmp_path / "nowhere") == ()
