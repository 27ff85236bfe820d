"""The program as a user meets it: processes of its own, a fresh folder, real data, a real ^C.

One verb is started as it was installed, the others in copies of a process that has imported what they need.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from fixtures import processes
from fixtures.processes import Own

pytestmark = pytest.mark.slow

FACTORY = """\
from sesurgery.networks.cifar_resnet import CifarResNet


def make(depth):
    return CifarResNet(depth, in_channels=1)
"""
SPEC = """\
version: 1
model: {source: python, name: "my_network:make", kwargs: {depth: 8}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: digits, epochs: 2, batch_size: 64, threads: 1, optimizer: {lr: 0.05}}
engines:
  - {backend: onnxruntime, precision: fp32}
latency: {rounds: 10, placements: 4, half_width: null, repeats: 2, warmup_seconds: 0, threads: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: a spec, and the network's factory beside it, which is not the current folder."""
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "tiny.yaml").write_text(SPEC)
    (specs / "my_network.py").write_text(FACTORY)
    return tmp_path


def sesurgery(folder: Path, *arguments: str) -> Own:
    """The program, come to a good end."""
    process = processes.sesurgery(folder, *arguments)
    assert process.end() == 0, process.err
    return process


def files(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.is_file() and not path.name.endswith((".manifest.json", ".lock"))
    )


def test_the_verbs_work_one_after_the_other_with_nothing_named(folder):
    script = str(Path(sys.executable).with_name("sesurgery"))
    applied = subprocess.run([script, "apply", "specs/tiny.yaml"], cwd=folder, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.endswith("-> runs/tiny\n")
    trained = sesurgery(folder, "train")
    assert trained.out.startswith("2 epochs, held-out top-1 ")
    built = sesurgery(folder, "build-engine", "--fp16")
    assert built.out.endswith("-> engines/tiny.onnxruntime.fp16.onnx\n")
    verified = json.loads(sesurgery(folder, "verify", "--json").out)
    assert [engine["verdict"] for engine in verified["engines"]] == ["passed"]
    benched = sesurgery(folder, "bench")
    assert "SE tax" in benched.out
    assert files(folder / "export") == ["tiny.fp16.onnx", "tiny.onnx", "tiny.plain.fp16.onnx", "tiny.plain.onnx"]
    assert files(folder / "engines") == [
        "tiny.onnxruntime.fp16.onnx",
        "tiny.plain.onnxruntime.fp16.onnx",
    ]
    assert files(folder / "runs" / "tiny") == [
        "applied.safetensors",
        "interface.json",
        "plan.json",
        "report.html",
        "report.json",
        "report.md",
        "spec.yaml",
        "weights.safetensors",
    ]
    assert_no_pickles_but_the_checkpoint(folder)


def assert_no_pickles_but_the_checkpoint(folder: Path) -> None:
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        # What torch.save writes, and a pickle as such.
        if zipfile.is_zipfile(path) or path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05")
    ]
    assert found == ["runs/tiny/train/last.ckpt"]
    # Tensors and plain data alone: anything else would be refused here.
    torch.load(folder / found[0], weights_only=True)


def test_run_twice_in_one_folder_keeps_both_runs(folder):
    (folder / "specs" / "tiny.yaml").write_text(SPEC.replace("epochs: 2", "epochs: 1"))
    first = sesurgery(folder, "run", "specs/tiny.yaml")
    weights = (folder / "runs" / "tiny" / "weights.safetensors").read_bytes()
    second = sesurgery(folder, "run", "specs/tiny.yaml")
    assert "runs/tiny/report.html" in first.out
    assert "runs/tiny-2/report.html" in second.out
    assert (folder / "runs" / "tiny" / "weights.safetensors").read_bytes() == weights
    assert [name for name in files(folder / "engines") if "as-exported" not in name] == [
        f"{run}{plain}.onnxruntime.fp32.onnx" for run in ("tiny-2", "tiny") for plain in ("", ".plain")
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_training_has_its_exit_code_and_resume_goes_on_to_the_end(number, code, folder):
    epochs = 20
    # Many epochs of few samples: the signal comes long before the end on however busy a machine.
    text = SPEC.replace("epochs: 2", f"epochs: {epochs}").replace(
        "data: digits", "data: {dataset: digits, held_out: 0.9}"
    )
    (folder / "specs" / "tiny.yaml").write_text(text)
    sesurgery(folder, "apply", "specs/tiny.yaml")
    before = (folder / "runs" / "tiny" / "weights.safetensors").read_bytes()
    process = processes.sesurgery(folder, "train")
    for line in process.lines():
        if line.startswith("epoch  2/"):
            process.send(number)
            break
    assert process.end() == code, process.err
    assert process.out == ""
    assert "Traceback" not in process.err
    last = process.err.splitlines()[-1]
    assert last.startswith("interrupted after ")
    assert last.endswith(f" of {epochs} epochs; continue with: sesurgery train runs/tiny --resume")
    done = int(last.split()[2])
    assert 2 <= done < epochs
    # What was not trained to the end does not take the place of what was there.
    assert (folder / "runs" / "tiny" / "weights.safetensors").read_bytes() == before
    assert (folder / "runs" / "tiny" / "train" / "last.ckpt").is_file()

    resumed = sesurgery(folder, "train", "runs/tiny", "--resume")
    assert resumed.out.startswith(f"{epochs} epochs, held-out top-1 ")
    assert resumed.err.splitlines()[0].startswith(f"epoch {done + 1:>2}/{epochs}")
    rows = (folder / "runs" / "tiny" / "train" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + epochs
    # What is printed is the accuracy of the last epoch: whether it is a good one hangs on the training.
    header, last = rows[0].split(","), rows[-1].split(",")
    top1 = float(last[header.index("held_out_top1")])
    assert resumed.out.startswith(f"{epochs} epochs, held-out top-1 {top1:.2%} ")
