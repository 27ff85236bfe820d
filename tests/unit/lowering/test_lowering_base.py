"""The contract around every pass: what cannot start and what breaks its promise is said, with the pass's name."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import examples
from sesurgery.lowering.base import Edit, Lowered, Pass, run
from sesurgery.lowering.passes.constant_gates import ConstantGates

MODEL = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
)


@dataclass(frozen=True)
class Renames(Pass):
    to: str

    def requires(self, model: onnx.ModelProto) -> str | None:
        return "it is a sigmoid already" if model.graph.node[0].op_type == "Sigmoid" else None

    def apply(self, model: onnx.ModelProto) -> Lowered:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.node[0].op_type = self.to
        return Lowered(copy, (Edit("relu", f"now {self.to}", changed=True),))

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        return "it made a Tanh" if after.graph.node[0].op_type == "Tanh" else None


def test_edits_of_all_passes_come_in_order() -> None:
    lowered = run(MODEL, [Renames("Elu"), Renames("Sigmoid")])
    assert [edit.why for edit in lowered.edits] == ["now Elu", "now Sigmoid"]
    assert MODEL.graph.node[0].op_type == "Relu"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("Sigmoid", r"SE602.*renames cannot start: it is a sigmoid already"),
        ("Tanh", r"SE607.*renames: it made a Tanh"),
        ("NoSuchOperator", r"SE607.*renames left a model that the ONNX checker rejects"),
    ],
)
def test_a_pass_that_cannot_start_or_breaks_its_promise_is_named(to: str, message: str) -> None:
    with pytest.raises(SesurgeryError, match=message):
        run(MODEL, [Renames(to), Renames("Elu")])


class Strict(ConstantGates):
    def accepted(self) -> float:
        return 1e-4


def test_a_lossy_pass_accepts_what_its_option_says_and_else_names_it() -> None:
    head = "(float[N,4,6,6] x) => (float[N,8,6,6] y) <float[8,4,1,1] w, float[8] b, float[8,8,1,1] p>"
    nodes = (
        "u = Conv(x, w, b) z = GlobalAveragePool(u) d = Conv(z, p, b) gate = Sigmoid(d) s = Mul(u, gate) y = Relu(s)"
    )
    model = examples.model(f"{head} {{ {nodes} }}")
    rng = np.random.default_rng(0)
    samples = [{"x": (0.3 * rng.normal(size=(1, 4, 6, 6))).astype(np.float32)} for _ in range(4)]
    folded = run(model, [ConstantGates(bound=0.4, samples=samples)], verify=True)
    assert [edit.changed for edit in folded.edits] == [True]
    assert 1e-3 < folded.differences["constant_gates"] < 5 * 0.4
    with pytest.raises(SesurgeryError) as caught:
        run(model, [Strict(bound=0.4, samples=samples)], verify=True)
    (found,) = caught.value.diagnostics
    assert found.code == "SE607"
    assert "of its largest value, 0.0001 is accepted" in found.message
    assert found.hint
    assert "constant_gates(bound=" in found.hint
