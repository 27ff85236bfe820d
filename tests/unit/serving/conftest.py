"""A small trained run with engines of each kind, made once; every test works on a copy of the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sesurgery import pipeline

SPEC = """\
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: {dataset: digits, held_out: 0.1}, epochs: 2, batch_size: 64, threads: 1}
engines:
  - {backend: onnxruntime, precision: fp32, batch: {min: 1, opt: 4, max: 16}}
  - {backend: openvino, precision: fp32, batch: {min: 1, opt: 1, max: 16}}
"""


@pytest.fixture(scope="session")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("served")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("tiny.yaml").write_text(SPEC)
        run = pipeline.apply(pipeline.load_spec("tiny.yaml"), pipeline.Workspace(), "tiny.yaml").folder
        pipeline.train(run)
        pipeline.build_engines(run, pipeline.Workspace())
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(_served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy, as the current folder."""
    copied = tmp_path / "copy"
    shutil.copytree(_served, copied)
    monkeypatch.chdir(copied)
    return copied
