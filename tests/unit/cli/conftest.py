"""The program as a user starts it, without the seconds that a process of its own costs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.cli import main

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


@dataclass(frozen=True)
class Ended:
    """How the program ended and what it wrote, all the way down to the file descriptors."""

    code: int
    out: str
    err: str


@pytest.fixture
def sesurgery(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`sesurgery("plan", "x.yaml")`: the real entry point, exit codes and all."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["sesurgery", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, but for the spec."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
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
def here(_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a folder with a trained run and an engine as the current one."""
    copied = tmp_path / "copy"
    shutil.copytree(_built, copied)
    monkeypatch.chdir(copied)
    return copied
