"""The three networks of PP-OCRv4 as they are deployed: every gate is found, explained and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fixtures.ocr_files import needs_them, ocr_file

from sesurgery import pipeline
from sesurgery.graph.gates import channel_gates
from sesurgery.onnxgraph import io, numerics
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon


@dataclass(frozen=True)
class File:
    name: str
    shape: tuple[int, int, int]
    gates: int


FILES = (
    File("ch_PP-OCRv4_det_infer", (3, 320, 320), 10),
    File("ch_PP-OCRv4_rec_infer", (3, 48, 320), 2),
    File("ch_ppocr_mobile_v2.0_cls_infer", (3, 48, 192), 9),
)
CHANGES = {"onnxruntime": (), "openvino": (), "tensorrt-rtx": ("squeeze_layout",)}
"""Passes that change every gate: each is 1x1 convolutions and one HardSigmoid already, and what it averages has another
reader, or comes from an activation, a sum or a 3x3 convolution."""
pytestmark = [
    pytest.mark.slow,
    needs_them,
    pytest.mark.parametrize("file", FILES, ids=lambda file: file.name),
]


def test_the_surgeon_sees_every_gate(file: File) -> None:
    view = OnnxSurgeon(file.shape).look(io.load(ocr_file(file.name))).view
    assert len(channel_gates(view)) == file.gates


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt-rtx"])
def test_every_pass_says_of_every_gate_what_it_did(file: File, backend: str, tmp_path: Path) -> None:
    target = tmp_path / "lowered.onnx"
    done = pipeline.lower(pipeline.LowerRequest(ocr_file(file.name), target, backend))
    assert done.gates == file.gates
    assert all(len(edits) >= file.gates for edits in done.edits.values())
    assert all(edit.where and edit.why for edits in done.edits.values() for edit in edits)
    counts = {name: sum(edit.changed for edit in edits) for name, edits in done.edits.items()}
    assert {name: count for name, count in counts.items() if count} == dict.fromkeys(CHANGES[backend], file.gates)
    given, lowered = io.load(ocr_file(file.name)), io.load(target)
    fed = numerics.feeds(given, seed=1)
    # Probabilities; the detector amplifies rounding, whoever rounds.
    for name, expected in numerics.outputs(given, fed).items():
        assert np.abs(numerics.outputs(lowered, fed)[name] - expected).max() < 1e-3
