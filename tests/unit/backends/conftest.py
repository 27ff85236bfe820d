"""A small squeeze-and-excitation network as an ONNX file, without torch: built in milliseconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from filled_graphs import filled

from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision

Make = Callable[..., Path]

SE = """(float[{batch},3,8,8] x) => (float[{batch},5] y) <
    float[8,3,3,3] stem, float[2,8,1,1] down, float[8,2,1,1] up, float[8,5] head
> {{
    s = Conv<pads=[1,1,1,1]>(x, stem)
    m = Relu(s)
    squeeze = GlobalAveragePool(m)
    hidden = Conv(squeeze, down)
    active = Relu(hidden)
    raised = Conv(active, up)
    gate = Sigmoid(raised)
    scaled = Mul(m, gate)
    pooled = GlobalAveragePool(scaled)
    flat = Flatten(pooled)
    y = MatMul(flat, head)
}}"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a graph in text to a file; its declared values become weights; nodes are named after their outputs."""

    def write(graph: str, name: str = "net.onnx", *, domains: str = '"": 20', lower: bool = False) -> Path:
        model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]> g {graph}")
        filled(model)
        path = tmp_path / name
        onnx.save(run(model, [Precision()]).model if lower else model, path)
        return path

    return write


@pytest.fixture
def fp32(make: Make) -> Path:
    return make(SE.format(batch="batch"), "se.onnx")


@pytest.fixture
def fp16(make: Make) -> Path:
    return make(SE.format(batch="batch"), "se.fp16.onnx", lower=True)


@pytest.fixture
def fixed_batch(make: Make) -> Path:
    return make(SE.format(batch=4), "se.fixed.onnx")


@pytest.fixture
def images() -> Callable[[int], dict[str, np.ndarray]]:
    return lambda batch: {"x": np.random.default_rng(batch).normal(size=(batch, 3, 8, 8)).astype(np.float32)}
