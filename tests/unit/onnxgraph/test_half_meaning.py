"""What a file in fp16 says, on a processor without fp16: values are rounded, and what is too large is infinite."""

import numpy as np
import onnx

from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.half_meaning import in_single

TEXT = """<ir_version: 10, opset_import: ["": 20]> g (float[N] x) => (float[N] y) {
    small = Cast<to=10>(x)
    large = Mul(small, small)
    back = Sqrt(large)
    y = Cast<to=1>(back)
}"""


def test_values_are_rounded_as_numpy_rounds_them_and_overflow_as_they_do():
    model = onnx.parser.parse_model(TEXT)
    x = np.array([0.1, 1 / 3, 3.3, 100.7, 255.9, 255.99, 300.0, np.nan, -7.77], np.float32)
    found = numerics.runner(in_single(model))({"x": x})["y"]
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        expected = np.sqrt((half * half).astype(np.float16)).astype(np.float32)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isinf(found[6])


def test_a_file_without_fp16_stays_as_it_is():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N] x) => (float[N] y) { y = Sqrt(x) }'
    )
    assert in_single(model) is model
