"""What the machine refuses exits with 1, and what ends a command from outside with 128 + the signal's number."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sesurgery import pipeline
from sesurgery.cli import strays
from sesurgery.cli.exits import colours
from sesurgery.training.loop.record import Recorder

PROGRAM = [sys.executable, "-c", "from sesurgery.cli import main; main()"]

REFUSED = [
    (OSError(errno.ENOSPC, "No space left on device", "export/x.onnx"), "export/x.onnx: no space left on device"),
    (OSError(errno.EROFS, "Read-only file system", "runs"), "runs: read-only file system"),
    (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: permission denied"),
    (FileExistsError(errno.EEXIST, "File exists", "export"), "export: file exists"),
    (OSError(errno.EMFILE, "Too many open files", "x"), "x: too many open files"),
    (OSError(errno.EIO, "Input/output error"), "input/output error"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "no space left on device"),
    (MemoryError(), "there is not enough memory"),
]


@pytest.mark.parametrize(("error", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_the_machine_refuses_is_no_defect(error, told, sesurgery, empty, monkeypatch):
    def refused(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "plan", refused)
    ended = sesurgery("plan", "tiny.yaml")
    assert ended.code == 1
    first, hint = ended.err.splitlines()
    assert first == f"error[SE801]: {told}"
    assert hint.startswith("  hint: ")


def test_another_errno_is_a_defect(sesurgery, empty, monkeypatch):
    def broken(*arguments: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(pipeline, "plan", broken)
    ended = sesurgery("plan", "tiny.yaml")
    assert ended.code == 3
    Path(ended.err.split()[-1]).unlink()


@pytest.mark.parametrize("target", ["folder", "pipe"])
def test_an_output_that_is_no_file_is_refused(target, sesurgery, empty):
    Path("folder").mkdir()
    os.mkfifo("pipe")
    ended = sesurgery("schema", "-o", target)
    assert ended.code == 1
    assert ended.err.startswith(f"error[SE405]: {target} is ")


@pytest.mark.parametrize(
    ("verb", "spec"), [("check", "/dev/zero"), *((verb, "pipe.yaml") for verb in ("check", "plan", "run", "train"))]
)
def test_a_pipe_or_a_device_is_no_spec(verb, spec, sesurgery, empty):
    os.mkfifo("pipe.yaml")
    ended = sesurgery(verb, spec)
    assert ended.code == 1
    assert "error[SE001]: cannot be read: it is a pipe or a device" in ended.err


def test_a_full_standard_output_is_told_on_stderr():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error[SE801]: standard output: no space left on device")


def test_a_reader_that_went_away_ends_it_without_a_word():
    reader, end = os.pipe()
    os.close(reader)
    ended = subprocess.run([*PROGRAM, "--help"], stdout=end, stderr=subprocess.PIPE, text=True)
    os.close(end)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_no_colour_is_asked_for_by_any_text(monkeypatch):
    assert colours() is None
    monkeypatch.setenv("NO_COLOR", "")
    assert colours() is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert colours() is False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_verb_as_control_c_does(number, code, sesurgery, empty, monkeypatch):
    def ended(*arguments: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(pipeline, "plan", ended)
    before = signal.getsignal(number)
    found = sesurgery("plan", "tiny.yaml")
    assert (found.code, found.out, found.err) == (code, "", f"ended by {number.name}\n")
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(sesurgery, empty, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(pipeline, "load_spec", lambda path: signal.raise_signal(signal.SIGHUP) or 1 / 0)
        ended = sesurgery("plan", "tiny.yaml")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended.code == 3
    Path(ended.err.split()[-1]).unlink()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_training_leaves_a_checkpoint_and_says_how_to_go_on(number, code, sesurgery, empty, monkeypatch):
    def press(recorder: Recorder, *arguments: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(Recorder, "on_train_batch_end", press)
    ended = sesurgery("run", "tiny.yaml")
    assert ended.code == code
    assert ended.err.splitlines()[-1] == "interrupted; continue with: sesurgery train runs/tiny --resume"
    assert Path("runs/tiny/train/last.ckpt").is_file()
    refused = sesurgery("train")
    assert refused.code == 1
    assert "error[SE405]: runs/tiny holds a training that was stopped after 0 of 4 epochs" in refused.err
    monkeypatch.undo()
    os.chdir(empty)
    assert sesurgery("train", "--resume").code == 0


def test_resuming_and_restarting_at_once_is_a_wrong_command_line(sesurgery, empty):
    assert sesurgery("train", "--resume", "--restart").code == 2
    assert sesurgery("train", "tiny.yaml", "--resume").code == 2
    assert not Path("runs").exists()


KILLED = """
import contextlib
import os
from pathlib import Path
from sesurgery import temporaries
with contextlib.ExitStack() as stack:
    for file in ("engines/x.onnx", "runs/tiny/plain/last.ckpt", "runs/tiny/train/epochs/0001.safetensors"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(temporaries.file(Path(file)))
    stack.enter_context(temporaries.folder(Path("runs/tiny/weights")))
    os.kill(os.getpid(), 9)
"""


def test_the_next_command_cleans_what_a_killed_one_left(sesurgery, here):
    assert subprocess.run([sys.executable, "-c", KILLED]).returncode == -signal.SIGKILL
    left = [path for folder in ("engines", "runs/tiny") for path in Path(folder).rglob(".*.tmp")]
    assert len(left) == 4
    assert sesurgery("list", "blocks").code == 0
    assert [path for path in left if path.exists()] == []
    assert strays.clean(Path()) == ()
