"""The contract around every pass: what cannot start and what breaks its promise is said, with the pass's name."""

from dataclasses import dataclass

import onnx
import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering.base import Edit, Lowered, Pass, run

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
