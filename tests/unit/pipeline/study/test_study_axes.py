"""A study over the share of the data, the recipe, the block and two backends: trained, built and raced."""

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
PRESET, RATE = "se_paper", 0.6 * 64 / 1024
"""A recipe in place of the spec's, and its learning rate at the spec's batch size."""
BLOCK, WEIGHTS = "eca", 3 * 3
"""A block in place of the spec's, and its weights: three blocks, each of a kernel of three."""
GIVEN = {
    **SPEC,
    "surgery": [{"insert": {"block": "se"}, "at": "residual"}],
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
        "axes": {
            "train.data.train_samples": [SHARE],
            "train.preset": [PRESET],
            "surgery[0].insert.block": [BLOCK],
            "engines[0].backend": [*BACKENDS],
        },
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
def test_share_recipe_and_block_are_those_of_the_cell_and_two_backends_share_its_training_and_the_race() -> None:
    pytest.importorskip("openvino")
    spec = pipeline.load_spec(GIVEN)
    done = pipeline.study(spec, Workspace(), "tiny.yaml")
    rows = done.answer.rows
    assert [(row.trials, row.failures) for row in rows] == [(1, ())] * 4
    where = {tuple(row.cell.where.values()) for row in rows}
    assert where == {(SHARE, PRESET, *block, backend) for block in ([], [BLOCK]) for backend in BACKENDS}
    trained = [
        pipeline.load_spec(path.parents[1] / "spec.yaml") for path in (done.folder / "runs").glob("*/train/last.ckpt")
    ]
    assert [len(data_of(each).train) for each in trained] == [SHARE] * 2
    assert [each.train.optimizer.lr for each in trained] == [pytest.approx(RATE)] * 2
    params = {row.cell.plain: row.params for row in rows}
    assert params[False] - params[True] == WEIGHTS
    # Both backends were in the one race, each engine against the plain network's of its own backend.
    assert all(row.latency is not None for row in rows)
    assert [row.latency is not None and row.latency.tax is not None for row in rows] == [
        not row.cell.plain for row in rows
    ]
    built = {
        json.loads(path.read_text())["details"]["backend"] for path in (done.folder / "engines").glob("*.manifest.json")
    }
    assert built == set(BACKENDS)
