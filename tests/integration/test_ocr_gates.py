"""`sesurgery gates FILE`, and `--fold`, on a deployed network of others: the text direction classifier of PP-OCR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.ocr_files import drawn_lines, needs_them, ocr_file

from sesurgery import pipeline
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.observe import observe
from sesurgery.spec.latency import Latency

CHANNELS = (8, 32, 88, 88, 40, 48, 104, 200, 200)
pytestmark = [pytest.mark.slow, needs_them]


def test_every_gate_of_a_deployed_classifier_is_named_and_measured(tmp_path: Path) -> None:
    file = ocr_file("ch_ppocr_mobile_v2.0_cls_infer")
    lines, turned = drawn_lines(120)
    np.savez(tmp_path / "lines.npz", x=lines, labels=turned)
    found = pipeline.gates_of_file(file, tmp_path / "lines.npz")
    assert (found.left, found.classes) == ((), ("0", "1"))
    assert tuple(block.channels for block in found.blocks) == CHANNELS
    assert len({block.key for block in found.blocks}) == len(CHANNELS)
    # They are lines of text to it.
    model = onnx.load(file)
    (said,) = numerics.outputs(model, {"x": lines}).values()
    assert (said.argmax(1) == turned).mean() > 0.95
    # The gates are what its activations give, wherever a map shows them.
    activations = [node.output[0] for node in model.graph.node if node.op_type == "HardSigmoid"]
    (given,) = observe(model, activations, [{"x": lines}])
    for block, name in zip(found.blocks, activations, strict=True):
        gates = given[name].reshape(len(lines), -1)
        assert block.unseen == 0
        for label, of in enumerate(block.classes):
            mean = gates[turned == label].mean(0)
            np.testing.assert_allclose(np.asarray(of.mean), mean, atol=1e-3)
        assert block.dead == (gates < 0.05).all(0).sum()
        assert block.saturated == (gates > 0.95).all(0).sum()
    first, last = found.blocks[0], found.blocks[-1]
    assert first.between_class < 0.05 < last.between_class


def test_gates_of_a_deployed_classifier_are_folded_by_the_names_of_the_table(tmp_path: Path) -> None:
    file = ocr_file("ch_ppocr_mobile_v2.0_cls_infer")
    lines, turned = drawn_lines(120)
    np.savez(tmp_path / "lines.npz", x=lines, labels=turned)
    table = pipeline.gates_of_file(file, tmp_path / "lines.npz")
    race = Latency(rounds=10, repeats=2, placements=4, half_width=None, warmup_seconds=0)
    request = pipeline.FileFoldRequest(file, tmp_path / "lines.npz", 0.06, latency=race)
    told = pipeline.fold_file(request)
    assert [gate.key for gate in told.gates] == [block.key for block in table.blocks]
    assert [gate.folded for gate in told.gates] == [True, True, *[False] * 7]
    for gate, block in zip(told.gates, table.blocks, strict=True):
        # What is observed of the table's gates is a quotient of maps.
        assert 0 < gate.within <= block.constant_within + 1e-3
    assert (told.deciding, told.held_out, told.left) == (60, 60, ())
    assert told.engine is not None
    flips = told.engine.flips
    assert flips is not None
    assert flips.answering.sequence is False
    assert flips.as_predicted
    # It reads drawn lines, as it is and folded.
    assert flips.scored is not None
    assert min(flips.scored.top1) > 0.95
    assert 0 < told.engine.change < 0.3
