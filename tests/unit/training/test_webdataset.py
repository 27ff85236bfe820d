"""Shards, written as WebDataset's own writer writes them."""

from __future__ import annotations

import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.code import code_of
from sesurgery.training.data.webdataset import WebDataset

webdataset = pytest.importorskip("webdataset")
SHAPE = (3, 16, 16)


def image(index: int) -> Image.Image:
    return Image.fromarray(np.full((16, 16, 3), 10 * index, np.uint8))


def write(path: Path, indices: range, kind: str = "cls") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as shard:
        for index in indices:
            label = {"label": index % 3} if kind == "json" else index % 3
            shard.write({"__key__": f"{index:04d}", "png": image(index), kind: label})
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write(tmp_path / "train-000.tar", range(6))
    write(tmp_path / "train-001.tar", range(6, 10))
    write(tmp_path / "val-000.tar", range(10, 13))
    return tmp_path


def load(folder: Path, **options: object):
    return WebDataset(root=str(folder), crop=1.0, mean=(0, 0, 0), std=(1, 1, 1), **options).load(SHAPE)


def brightness(images: torch.Tensor) -> list[int]:
    return [round(float(each.mean()) * 25.5) for each in images]


def test_samples_are_read_in_any_order_and_across_shards(shards):
    data = load(shards)
    assert (len(data.train), len(data.held_out), data.classes) == (10, 3, ("0", "1", "2"))
    assert data.train.labels.tolist() == [index % 3 for index in range(10)]
    assert brightness(data.train.images[[9, 0, 5, 6]]) == [9, 0, 5, 6]
    again = pickle.loads(pickle.dumps(data.train))
    assert brightness(again.images[7:9]) == [7, 8]


def test_braces_json_labels_and_names(tmp_path):
    for number in range(2):
        write(tmp_path / f"t{number}.tar", range(3 * number, 3 * number + 3), "json")
    (tmp_path / "names.txt").write_text("cat\ndog\n\nfox\n")
    data = load(tmp_path, train="t{0..1}.tar", held_out="t0.tar", label="json:label", names="names.txt")
    assert (len(data.train), data.classes) == (6, ("cat", "dog", "fox"))
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_urls_are_fetched_once(shards, tmp_path_factory):
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shards))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        root = tmp_path_factory.mktemp("root")
        options = {"train": f"{at}/train-{{000..001}}.tar", "held_out": f"{at}/val-000.tar"}
        first = load(root, **options)
        count = len(asked)
        second = load(root, **options)
        server.shutdown()
    assert count == len(asked) == 3
    assert brightness(second.train.images[:]) == brightness(first.train.images[:]) == list(range(10))


def test_a_command_is_code_of_the_spec_and_is_run(shards, tmp_path_factory):
    command = f"pipe:cat {shards}/train-000.tar"
    given = WebDataset(root=str(shards), train=command)
    assert code_of(given) == (command,)
    assert code_of(WebDataset()) == ()
    root = tmp_path_factory.mktemp("root")
    assert len(load(root, train=command, held_out=f"pipe:cat {shards}/val-000.tar").train) == 6


@pytest.mark.parametrize("hidden", ["train-000.tar::pipe:touch ran", "{pipe:touch ran,x.tar}", "{p,x}ipe:touch ran"])
def test_a_command_that_does_not_stand_alone_is_not_run(hidden, shards, monkeypatch):
    monkeypatch.chdir(shards)
    with pytest.raises(SesurgeryError, match="a command to run stands alone"):
        load(shards, train=hidden)
    assert not (shards / "ran").exists()


def add(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: add(folder / "train-001.tar", "0042.png", b"x"), "train-001.tar: 0042 has no label"),
        (lambda folder: add(folder / "train-001.tar", "0042.cls", b"1"), "train-001.tar: 0042 has no image"),
        (lambda folder: add(folder / "train-001.tar", "0007.jpg", b"x"), "0007 has two members for its image"),
        (lambda folder: add(folder / "train-001.tar", "0042.cls", b"cat"), "invalid literal"),
        (lambda folder: (folder / "train-001.tar").write_bytes(b"\x1f\x8b" + bytes(600)), "not hold it"),
        (lambda folder: [path.unlink() for path in folder.glob("train*")], "no file fits train-*.tar"),
    ],
)
def test_what_is_wrong_with_a_shard_is_said(spoil, says, shards):
    spoil(shards)
    with pytest.raises(SesurgeryError) as caught:
        load(shards)
    assert "SE503" in str(caught.value)
    assert says in str(caught.value)


def test_an_image_that_cannot_be_read_is_named_by_its_place(shards):
    add(shards / "train-001.tar", "0042.png", b"no image")
    add(shards / "train-001.tar", "0042.cls", b"1")
    with pytest.raises(SesurgeryError, match=r"train-001\.tar, the image at byte \d+, is not an image"):
        load(shards).train.images[[10]]


def test_a_spec_names_it(shards):
    spec = {
        "version": 1,
        "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20"},
        "input": {"shape": list(SHAPE)},
        "surgery": [{"insert": "se", "at": "residual"}],
        "train": {"data": {"dataset": "webdataset", "root": str(shards)}},
    }
    assert len(pipeline.load_spec(spec).train.data.options.load(SHAPE).train) == 10
