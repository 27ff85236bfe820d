"""What every pass owes: a reason where it cannot start, a promise that is checked, and nothing at a second run."""

from __future__ import annotations

import functools
import warnings
from io import BytesIO
from pathlib import Path

import onnx
import pytest
import timm
import torch
import torchvision
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import PASSES, in_order, load
from sesurgery.lowering import examples as _examples
from sesurgery.lowering.base import Edit, Lowered, Pass, name_of, run
from sesurgery.lowering.precision.calibration import Range
from sesurgery.lowering.precision.half import Precision
from sesurgery.lowering.precision.int8 import Quantize, ranges_of
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches

FOUND = Path(__file__).parents[2] / "integration" / "found"
CONVERSIONS: dict[str, type[Pass]] = {"precision": Precision, "quantize": Quantize}
GATE_PASSES = PASSES.names()
KINDS = {**CONVERSIONS, **{name: PASSES.load(name) for name in GATE_PASSES}}
KEEPING = tuple(name for name in GATE_PASSES if name != "constant_gates")
"""Those after which there are as many gates as before."""
TEXT = """(float[N,4,6,6] x) => (float[N,8,6,6] y) <float[8,4,1,1] w, float[3,8,1,1] w1, float[8,3,1,1] w2> {
    u = Conv(x, w) z = GlobalAveragePool(u) d = Conv(z, w1) a = Relu(d) e = Conv(a, w2) gate = Sigmoid(e)
    y = Mul(u, gate) }"""


def given(name: str, model: onnx.ModelProto) -> Pass:
    """A pass with the samples or ranges that it decides by."""
    samples = [_numerics.feeds(model, seed) for seed in range(2)]
    if name == "quantize":
        ranges: dict[str, Range] = ranges_of(model, samples, "minmax")
        return Quantize(ranges)
    if name in CONVERSIONS:
        return CONVERSIONS[name]()
    (step,) = load([name])
    # A wide bound: on random weights no gate is constant within 0.01.
    return PASSES.load(name)(bound=0.2, samples=samples) if name == "constant_gates" else step


@functools.cache
def network(name: str) -> bytes:
    if name.endswith("_se"):
        model = onnx.load(FOUND / f"{name}.onnx")
        return model.SerializeToString()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = torchvision.models.mobilenet_v3_small() if "v3" in name else timm.create_model(name)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The last norm of a branch starts at zero and would hide it.
                nn.init.uniform_(module.weight, 0.5, 1.0)
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {"dynamo": False, "opset_version": 17, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
        torch.onnx.export(made.eval(), (torch.zeros(1, 3, 64, 64),), buffer, **sizes)
    return buffer.getvalue()


@pytest.mark.parametrize("name", KINDS)
def test_a_pass_declares_what_it_asks_for_and_what_it_promises(name: str) -> None:
    step = KINDS[name]
    assert step.requires is not Pass.requires
    assert step.ensures is not Pass.ensures
    assert name_of(step.__new__(step)) == name


@pytest.mark.parametrize("name", KINDS)
def test_a_pass_that_cannot_start_says_so_by_its_name(name: str) -> None:
    model = _examples.model(TEXT)
    step = given(name, model)
    model.opset_import[0].version = 9
    with pytest.raises(SesurgeryError, match=f"SE602.*{name} cannot start: the opset is 9"):
        run(model, [step])


def spoiled(name: str, model: onnx.ModelProto, how: str) -> Pass:
    """The pass as it is, but for an `apply` that does damage afterwards and says nothing of it."""
    kind = KINDS[name]
    step = given(name, model)

    def apply(self: Pass, model: onnx.ModelProto) -> Lowered:
        done = kind.apply(self, model)
        nodes = done.model.graph.node
        if how == "a gate is lost":
            for node in nodes:
                if node.output[0] == "y":
                    del node.input[1:]
                    node.op_type = "Identity"
                    node.input[0] = "u"
        elif how == "an output is renamed":
            nodes[-1].output[0] = done.model.graph.output[0].name = "other"
        else:
            done.model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 7
            del done.model.graph.value_info[:]
            for value in done.model.graph.output:
                value.type.tensor_type.ClearField("shape")
        return Lowered(done.model, (*done.edits, Edit("y", "spoiled", changed=True)))

    damaged = type("".join(part.title() for part in name.split("_")), (kind,), {"apply": apply})
    made = damaged.__new__(damaged)
    vars(made).update(vars(step))
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        *((name, "a gate is lost", "the model had 1 squeezes of gates and now has 0") for name in KEEPING),
        *((name, "an output is renamed", "the outputs are other, not y") for name in GATE_PASSES),
        *((name, "an input has another size", "input 'x' has another size") for name in GATE_PASSES),
    ],
)
def test_a_pass_that_breaks_its_promise_is_an_error_that_names_it(name: str, how: str, words: str) -> None:
    model = _examples.model(TEXT)
    run(model, [given(name, model)])
    with pytest.raises(SesurgeryError, match=rf"SE607.*{name}: {words}"):
        run(model, [spoiled(name, model, how)])


def test_a_pool_that_was_forgotten_is_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _examples.model(TEXT.replace("GlobalAveragePool(u)", "ReduceMean<axes=[2,3]>(u)"), opset=17)
    kind = PASSES.load("squeeze_pool")
    monkeypatch.setattr(kind, "apply", lambda self, model: Lowered(model, ()))
    with pytest.raises(SesurgeryError, match=r"SE607.*squeeze_pool: squeeze 'ReduceMean_1' is not a pool"):
        run(_named(model), [kind()])


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    return model


@pytest.mark.parametrize("source", ["seresnet18", "mobilenet_v3_small", "keras_se"])
@pytest.mark.parametrize("name", GATE_PASSES)
def test_a_second_run_changes_nothing_on_a_real_network(name: str, source: str) -> None:
    model = onnx.load_from_string(network(source))
    step = given(name, model)
    lowered = run(model, [step])
    has_gates = "a network with gates has candidates for every pass, be it with the reason against them"
    assert lowered.edits or name == "fold_norms", has_gates
    assert all(edit.where and edit.why for edit in lowered.edits)
    again = run(lowered.model, [step])
    assert not any(edit.changed for edit in again.edits), [edit for edit in again.edits if edit.changed][:3]
    assert again.model.graph.node == lowered.model.graph.node


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_precision_is_not_lowered_twice(name: str) -> None:
    model = onnx.load_from_string(network("keras_se"))
    step = given(name, model)
    with pytest.raises(SesurgeryError, match=f"SE602.*{name} cannot start: .* already"):
        run(run(model, [step]).model, [step])


@pytest.mark.parametrize("source", ["seresnet18", "mobilenet_v3_small", "keras_se"])
def test_all_passes_in_the_order_that_they_ask_for_keep_a_real_network(source: str) -> None:
    model = onnx.load_from_string(network(source))
    names = in_order(reversed(KEEPING))
    lowered = run(model, load(names), verify=True)
    assert max(lowered.differences.values()) < 1e-5
    assert lowered.differences
    assert set(lowered.differences) <= set(names)
    assert len(gate_branches(Dataflow(lowered.model))) > 0
