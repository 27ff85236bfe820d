"""`sesurgery data fetch`, from a server on this machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from torchvision import datasets

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.diagnostics import SesurgeryError


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """MNIST of ten images, where torchvision looks for it."""
    folder = tmp_path / "server"
    folder.mkdir()
    resources = []
    for start in ("train", "t10k"):
        pixels = np.zeros((10, 28, 28), np.uint8)
        for name, content in (
            (f"{start}-images-idx3-ubyte.gz", struct.pack(">IIII", 0x803, 10, 28, 28) + pixels.tobytes()),
            (f"{start}-labels-idx1-ubyte.gz", struct.pack(">II", 0x801, 10) + bytes(range(10))),
        ):
            (folder / name).write_bytes(gzip.compress(content))
            resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_set_is_fetched_once_and_can_be_read(published: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "sets")
    done = CliRunner().invoke(program, ["data", "fetch", "mnist", "--root", root])
    assert (done.exit_code, done.stdout) == (0, f"mnist: 10 samples to train on, 10 held out -> {root}/\n")
    for path in published.iterdir():
        path.unlink()
    assert pipeline.fetch("mnist", root).train == 10


def test_a_file_with_another_checksum_is_refused(published: Path, tmp_path: Path) -> None:
    (published / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(SesurgeryError, match=r"SE503.*MNIST could not be downloaded(.|\n)*by hand"):
        pipeline.fetch("mnist", str(tmp_path / "sets"))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_file_that_was_cut_off_in_unpacking_is_unpacked_again(published: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "sets"
    pipeline.fetch("mnist", str(root))
    plain = root / "MNIST" / "raw" / name
    whole = plain.read_bytes()
    plain.write_bytes(whole[: len(whole) // 2])
    # From the archive, which is there.
    (published / f"{name}.gz").unlink()
    assert pipeline.fetch("mnist", str(root)).train == 10
    assert plain.read_bytes() == whole
    assert [path.name for path in plain.parent.iterdir() if path.suffix == ".tmp"] == []


def test_a_download_that_was_cut_off_is_begun_again(published: Path, tmp_path: Path) -> None:
    raw = tmp_path / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes((published / "train-images-idx3-ubyte.gz").read_bytes()[:40])
    assert pipeline.fetch("mnist", str(tmp_path / "sets")).train == 10


def test_without_a_network_it_says_what_to_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A port that nobody listens on.
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(SesurgeryError, match=r"SE503.*could not be downloaded(.|\n)*by hand; expected is MNIST/raw"):
        pipeline.fetch("mnist", str(tmp_path / "sets"))


def test_what_needs_no_files_is_not_fetched() -> None:
    with pytest.raises(SesurgeryError, match=r"SE503.*nothing to fetch for 'digits'"):
        pipeline.fetch("digits")
    with pytest.raises(SesurgeryError, match=r"SE105.*unknown dataset 'cifar'"):
        pipeline.fetch("cifar")
