"""ONNX Runtime engines of gates that end with an operator for which it has no blocks, at any number of channels."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.lowering import examples as _examples

NET = """(float[N,16,12,12] x) => (float[N,{c},12,12] y)
<float[{c},16,3,3] w, float[{c}] b, float[8,{c},1,1] w1, float[{c},8,1,1] w2, float three = {{3.0}},
 float zero = {{0.0}}, float six = {{6.0}}> {{
    c = Conv<pads=[1,1,1,1]>(x, w, b) u = Relu(c) z = GlobalAveragePool(u) d = Conv(z, w1) a = Relu(d) e = Conv(a, w2)
    h = Add(e, three) k = Clip(h, zero, six) gate = Div(k, six) s = Mul(u, gate) y = Relu(s) }}"""


@pytest.mark.parametrize("channels", [16, 20, 40, 72])
def test_a_gate_that_is_not_in_blocks_scales_what_it_did(channels: int, tmp_path: Path) -> None:
    given, engine = tmp_path / "net.onnx", tmp_path / "engine.onnx"
    onnx.save(_examples.model(NET.format(c=channels)), given)
    report = OnnxRuntime().build(given, engine, BuildOptions(batch=BatchRange(1, 1, 4)))
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (given, engine)]
    for batch in (1, 3):
        fed = {"x": np.random.default_rng(batch).normal(size=(batch, 16, 12, 12)).astype(np.float32)}
        expected, found = (session.run(None, fed)[0] for session in sessions)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    if platform.machine() in ("x86_64", "AMD64"):
        assert any("in blocks" in note for note in report.notes)
