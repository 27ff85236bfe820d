"""A study over the share of the data and over two backends, trained, built and raced."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from fixtures.studies import SPEC
from sklearn.datasets import load_digits

from sesurgery import pipeline
from sesurgery.pipeline import Workspace
from sesurgery.training.data import data_of

SHARE, BACKENDS = 50, ("onnxruntime", "openvino")
"""Of the 100 samples that the spec asks for, half."""
GIVEN = {
    **SPEC,
    "input": {"shape": [1, 28, 28]},
    "train": {**SPEC["train"], "data": {"dataset": "mnist_5k", "train_samples": 100, "held_out_samples": 100}},
    "export": {"check_batches": [1]},
    "latency": {
        "batch": 1,
        "rounds": 10,
        "placements": 4,
        "half_width": None,
        "repeats": 1,
        "warmup_seconds": 0,
        "threads": 1,
    },
    "study": {
        "axes": {"train.data.train_samples": [SHARE], "engines[0].backend": [*BACKENDS]},
        "seeds": [0],
        "latency": True,
    },
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's digits as the file of MNIST's 5,000, 28 x 28, in an empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    found = load_digits()
    images = np.pad(np.kron(found.images[:400] * 15, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2))).astype(int)
    rows = np.column_stack([images.reshape(len(images), -1), found.target[:400]])
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    Path("data").mkdir()
    (Path("data") / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))


@pytest.mark.slow
@pytest.mark.usefixtures("data")
def test_a_share_of_the_data_is_trained_on_and_two_backends_share_the_training_and_the_race() -> None:
    pytest.importorskip("openvino")
    spec = pipeline.load_spec(GIVEN)
    done = pipeline.study(spec, Workspace(), "tiny.yaml")
    rows = done.answer.rows
    assert [(row.trials, row.failures) for row in rows] == [(1, ())] * 4
    where = {(row.cell.plain, *row.cell.where.values()) for row in rows}
    assert where == {(plain, SHARE, backend) for plain in (True, False) for backend in BACKENDS}
    trained = sorted((done.folder / "runs").glob("*/train/last.ckpt"))
    assert [len(data_of(pipeline.load_spec(path.parents[1] / "spec.yaml")).train) for path in trained] == [SHARE] * 2
    # Both backends were in the one race, each engine against the plain network's of its own backend.
    assert all(row.latency is not None for row in rows)
    assert [row.latency is not None and row.latency.tax is not None for row in rows] == [
        not row.cell.plain for row in rows
    ]
    built = {
        json.loads(path.read_text())["details"]["backend"] for path in (done.folder / "engines").glob("*.manifest.json")
    }
    assert built == set(BACKENDS)
