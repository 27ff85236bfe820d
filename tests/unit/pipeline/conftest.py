"""One small run, trained once; every test that changes something works on a copy of the folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sesurgery import pipeline
from sesurgery.networks import checkpoint

SPEC = """\
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: {dataset: digits, held_out: 0.1}, epochs: 1, batch_size: 128, threads: 1}
engines:
  - {backend: onnxruntime, precision: fp32, batch: {min: 1, opt: 1, max: 256}}
parity: {batches: [64]}
latency: {batch: 1, rounds: 10, repeats: 2, warmup_seconds: 0, threads: 1}
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec, its trained run, and engines of it: fp32 and fp16. Not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("tiny.yaml").write_text(SPEC)
        workspace = pipeline.Workspace()
        run = pipeline.apply(pipeline.load_spec("tiny.yaml"), workspace, "tiny.yaml").folder
        pipeline.train(run)
        pipeline.build_engines(run, workspace)
        pipeline.build_engines(run, workspace, (pipeline.engine({"precision": "fp16"}),))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that folder as the current one; manifests hold relative paths, so a copy is whole."""
    copied = tmp_path / "copy"
    shutil.copytree(built, copied, copy_function=shutil.copy2)
    before = Path.cwd()
    os.chdir(copied)
    yield copied
    os.chdir(before)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, but for the spec."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def give_other_weights() -> Callable[[Path], None]:
    """Give a run other weights, as training on another machine or to another end would."""

    def give(folder: Path) -> None:
        run = checkpoint.read(folder, pipeline.catalogs())
        with torch.no_grad():
            for parameter in run.network.parameters():
                parameter.mul_(1.01)
        checkpoint.save(folder, run.network, run.spec, run.plan, run.manifest.command, run.manifest.details)

    return give
