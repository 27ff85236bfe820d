import multiprocessing
import time

import pytest

from sesurgery.artifacts import describe, locked, manifest_path, read_manifest, require_intact, writing
from sesurgery.diagnostics import SesurgeryError


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_text("content")
    describe(path, "onnx", "x", "sesurgery export runs/x", details={"nodes": 3, "batch": [1, 2]})
    return path


def test_a_manifest_says_how_to_make_the_artefact_again(artifact):
    manifest = require_intact(artifact)
    assert (manifest.command, manifest.details) == ("sesurgery export runs/x", {"nodes": 3, "batch": [1, 2]})
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
    started, order = context.Event(), context.Queue()
    process = context.Process(target=_hold, args=(tmp_path, started, order))
    process.start()
    assert started.wait(10)
    with locked(tmp_path):
        order.put("second")
    process.join(10)
    assert [order.get(timeout=5), order.get(timeout=5)] == ["first", "second"]
