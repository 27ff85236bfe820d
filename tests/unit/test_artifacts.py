import errno
import multiprocessing
import os
import time

import pytest

from sesurgery import artifacts
from sesurgery.artifacts import alone, busy, locked, write_text, writing
from sesurgery.diagnostics import SesurgeryError
from sesurgery.workspace import (
    OnnxDetails,
    OnnxManifest,
    Provenance,
    describe,
    manifest_path,
    place,
    read_manifest,
    require_intact,
)

DETAILS = OnnxDetails(nodes=3, max_abs_by_batch={"1": 0.0, "3": 1e-6})


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_text("content")
    describe(path, Provenance(OnnxManifest, "x", "sesurgery export runs/x", details=DETAILS))
    return path


def test_a_manifest_says_how_to_make_the_artefact_again(artifact):
    manifest = require_intact(artifact)
    assert (manifest.command, manifest.details) == ("sesurgery export runs/x", DETAILS)
    assert "python" in manifest.versions
    assert "cores" in manifest.device


def test_a_changed_artefact_is_refused_with_the_command_that_makes_it(artifact):
    artifact.write_text("tampered")
    with pytest.raises(SesurgeryError, match=r"SE401.*expected sha256 .* found(.|\n)*sesurgery export runs/x"):
        require_intact(artifact)


def test_a_missing_or_broken_manifest_is_said_so(artifact):
    manifest_path(artifact).write_text("{}")
    with pytest.raises(SesurgeryError, match="is not a manifest"):
        read_manifest(artifact)
    manifest_path(artifact).unlink()
    with pytest.raises(SesurgeryError, match="has no manifest"):
        read_manifest(artifact)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write_half():
        with writing(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def _hold(folder, started, order):
    with locked(folder):
        started.set()
        time.sleep(0.3)
        order.put("first")


def test_the_lock_keeps_a_second_process_out(tmp_path):
    context = multiprocessing.get_context("fork")
    started, order = context.Event(), context.SimpleQueue()
    process = context.Process(target=_hold, args=(tmp_path, started, order))
    process.start()
    assert started.wait(600)
    with locked(tmp_path):
        order.put("second")
    process.join()
    assert [order.get(), order.get()] == ["first", "second"]


class Killed(BaseException):
    """Ends a write where nothing more can be done, as kill -9 would."""


@pytest.mark.parametrize("after", [0, 1, 2], ids=["before", "between", "done"])
def test_placing_can_be_cut_off_anywhere(after, artifact, tmp_path, monkeypatch):
    new = tmp_path / "new"
    new.write_text("other content")
    describe(artifact, Provenance(OnnxManifest, "y", "sesurgery export runs/y", details=DETAILS), written=new)
    renames = []

    def replace(path, target):
        if len(renames) == after:
            raise Killed
        renames.append(target)
        os.replace(path, target)

    monkeypatch.setattr(type(artifact), "replace", replace)
    if after < 2:
        with pytest.raises(Killed):
            place(new, artifact)
    else:
        place(new, artifact)
    monkeypatch.undo()
    assert require_intact(artifact).name == ("x" if after == 0 else "y")
    assert artifact.read_text() == ("content" if after == 0 else "other content")


def test_a_manifest_that_waits_in_vain_does_no_harm(artifact, tmp_path):
    (tmp_path / "new").write_text("other content")
    describe(
        artifact, Provenance(OnnxManifest, "y", "sesurgery export runs/y", details=DETAILS), written=tmp_path / "new"
    )
    assert require_intact(artifact).name == "x"
    artifact.write_text("tampered")
    with pytest.raises(SesurgeryError, match="SE401"):
        require_intact(artifact)


def test_a_folder_is_not_written_over(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path, "text")
    assert caught.value.filename == str(tmp_path)


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "pipe", "text")
    assert caught.value.errno == errno.ENXIO
    assert not (tmp_path / "pipe").is_file()


def test_a_full_disk_is_told_by_the_files_own_name_and_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write_text(target, "new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def _busy(folder, started, end):
    with alone(folder, "training"):
        started.set()
        end.wait(20)


def test_a_second_process_does_not_wait_for_long_work(tmp_path):
    context = multiprocessing.get_context("fork")
    started, end = context.Event(), context.Event()
    process = context.Process(target=_busy, args=(tmp_path, started, end))
    process.start()
    assert started.wait(20)
    assert busy(tmp_path)
    with pytest.raises(SesurgeryError, match=r"SE405.*another process is training"), alone(tmp_path, "training"):
        pass
    end.set()
    process.join(20)
    assert not busy(tmp_path)
    with alone(tmp_path, "training"):
        pass
