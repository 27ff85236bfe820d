"""Gates of ONNX files: what is measured is what the file multiplies by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.gates.gates import GateResult
from sesurgery.reports.text.gates import to_json, to_text


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def file(here: Path) -> Path:
    return pipeline.export(Path("runs/tiny"), pipeline.Workspace()).path


def test_a_runs_file_has_the_gates_of_the_run(file, here):
    from sesurgery.networks import checkpoint
    from sesurgery.training.data import data_of

    data = data_of(checkpoint.read(Path("runs/tiny"), pipeline.catalogs()).spec)
    wanted = [index for label in range(2) for index in np.flatnonzero(data.held_out.labels.numpy() == label)[:5]]
    chosen = sorted(int(index) for index in wanted)
    np.savez("x.npz", input=data.held_out.images[chosen].numpy(), labels=data.held_out.labels[chosen].numpy())
    of_run = pipeline.gates(Path("runs/tiny"), classes=2, samples=5)
    of_file = pipeline.gates_of_file(file, Path("x.npz"))
    assert (of_file.classes, of_file.left) == (of_run.classes, ())
    assert len(of_file.blocks) == len(of_run.blocks) == 3
    for ours, theirs in zip(of_file.blocks, of_run.blocks, strict=True):
        assert ours.channels == theirs.channels
        assert ours.between_class == pytest.approx(theirs.between_class, abs=1e-4)
        for one, other in zip(ours.classes, theirs.classes, strict=True):
            np.testing.assert_allclose(one.mean, other.mean, atol=1e-4)


def test_without_labels_there_is_one_class_and_nothing_between(file, images):
    np.savez("x.npz", input=images)
    found = pipeline.gates_of_file(file, Path("x.npz"))
    assert found.classes == ("all samples",)
    assert {block.samples for block in found.blocks} == {12}
    text = to_text(found)
    assert text.startswith("12 samples\n")
    assert "between classes" not in text
    assert to_json(found)["onnx"] == file.as_posix()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"input": (12, 1, 8, 8), "labels": (3,)}, "'labels' is int64 of shape 3"),
        ({"picture": (12, 1, 8, 8)}, "holds samples of picture; the network's inputs are input"),
        ({"input": (12, 1, 9, 8)}, "samples of input 'input' have shape 12x1x9x8"),
    ],
)
def test_samples_that_do_not_fit_are_refused(arrays, says, file):
    made = {name: np.zeros(shape, np.int64 if name == "labels" else np.float32) for name, shape in arrays.items()}
    np.savez("x.npz", **made)
    with pytest.raises(SesurgeryError, match="SE606") as caught:
        pipeline.gates_of_file(file, Path("x.npz"))
    assert says in str(caught.value)


def test_a_file_without_gates_says_so(here, images):
    plain = pipeline.export(Path("runs/tiny"), pipeline.Workspace(), plain=True).path
    np.savez("x.npz", input=images)
    with pytest.raises(SesurgeryError, match="SE402"):
        pipeline.gates_of_file(plain, Path("x.npz"))


class Gate(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class Twice(torch.nn.Module):
    """One gate in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.se = Gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.se(self.se(self.conv(x)).relu())


def test_two_gates_of_one_module_are_told_apart(here, images):
    torch.onnx.export(Twice().eval(), (torch.zeros(1, 1, 8, 8),), "twice.onnx", dynamo=True, input_names=["input"])
    np.savez("x.npz", input=images[:4])
    found = pipeline.gates_of_file(Path("twice.onnx"), Path("x.npz"))
    assert len({block.key for block in found.blocks}) == 2
    assert found.left == ()


def test_a_file_whose_gates_are_not_per_channel_has_no_table() -> None:
    told = to_text(GateResult(Path("net.onnx"), ("all",), (), ("layer1",)))
    assert told == "layer1: its gate does not show, or differs over the map"
