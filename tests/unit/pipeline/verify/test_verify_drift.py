"""`verify --drift`: the error along the network of an engine, and the change of the spec that repairs a wrong one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper

from sesurgery import pipeline
from sesurgery.backends.base import Backend, BuildReport, Capability, Runner, TensorInfo
from sesurgery.backends.inductor import Inductor
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.openvino import OpenVINO
from sesurgery.backends.tensorrt import TensorRT
from sesurgery.lowering.fx import graph
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.half_meaning import in_single
from sesurgery.onnxgraph.scopes import scope_of
from sesurgery.pipeline.build_engine.build_engine import EnginesRequest
from sesurgery.reports.text import drift as drift_text
from sesurgery.reports.text.parity import to_json
from sesurgery.verification.parity import PARITY

RUN, FP32 = Path("runs/tiny"), Path("engines/tiny.onnxruntime.fp32.onnx")
SITES = ["se/layer1.0[0]", "se/layer2.0[0]", "se/layer3.0[0]"]
MODULE, SITE = "layer2.0.se", "se/layer2.0[0]"
Wrong = Callable[[Dataflow, NodeProto], bool]
"""Whether a compiler gets a block wrong, by the file and the block's last node."""


def wrong_block(
    monkeypatch: pytest.MonkeyPatch, backend: type[Backend], wrong: Wrong, outputs: float = math.inf
) -> None:
    """Let a backend compile one block to something else: three times what the block should give.

    A file of more `outputs` than that it compiles rightly.
    """
    build = backend.build

    def spoil(self: Backend, file: Path, out: Path, *rest: object, **named: object) -> BuildReport:
        model = onnx.load(file)
        flow = Dataflow(model)
        last = [node for node in flow.nodes if (scope_of(node) or "").startswith(MODULE)][-1]
        if wrong(flow, last) and len(model.graph.output) <= outputs:
            value, kind = last.output[0], flow.dtype(last.output[0])
            position = [node.name for node in model.graph.node].index(last.name)
            model.graph.node[position].output[0] = "spoiled"
            model.graph.initializer.append(helper.make_tensor("three", kind, [], [3.0]))
            model.graph.node.insert(position + 1, helper.make_node("Mul", ["spoiled", "three"], [value], name="wrong"))
        other = out.with_name("spoiled.onnx")
        onnx.save(model, other)
        try:
            return build(self, other, out, *rest, **named)
        finally:
            other.unlink()

    monkeypatch.setattr(backend, "build", spoil)


def always(flow: Dataflow, last: NodeProto) -> bool:
    return True


def in_half(flow: Dataflow, last: NodeProto) -> bool:
    return flow.dtype(last.output[0]) == TensorProto.FLOAT16


def beside_halves(flow: Dataflow, last: NodeProto) -> bool:
    return any(flow.dtype(node.output[0]) == TensorProto.FLOAT16 for node in flow.nodes)


def squeezed_by_a_pool(flow: Dataflow, last: NodeProto) -> bool:
    return any(node.op_type == "GlobalAveragePool" and (scope_of(node) or "").startswith(MODULE) for node in flow.nodes)


def rebuilt(**wanted: object) -> Path:
    (built,) = pipeline.build_engines(EnginesRequest(RUN, pipeline.Workspace(), (pipeline.engine(wanted),), again=True))
    return built.path


def test_an_engine_that_is_right_shows_its_small_error_at_every_block(here):
    section = pipeline.verify(FP32, drift=True).section
    assert [each.site for each in section.drift.errors if each.site] == SITES
    assert all(0 <= each.error < 1e-4 for each in section.drift.errors)
    assert (section.diagnosis, section.repairs) == (None, ())
    assert drift_text.findings(section) == ["no place is over 0.001, which fp32 explains"]
    assert PARITY.file(RUN, FP32.name).is_file()


def test_int8_that_was_calibrated_on_dim_images_is_said_to_saturate_and_repaired(here):
    np.save("dim.npy", np.random.default_rng(0).normal(0, 0.02, (16, 1, 8, 8)).astype(np.float32))
    engine = rebuilt(precision="int8", calibration={"file": "dim.npy"})
    before = sorted(Path().rglob("*.onnx"))
    verified = pipeline.verify(engine, drift=True)
    section = verified.section
    assert section.diagnosis.kind == "saturation"
    (repair,) = section.repairs
    assert repair.worked
    assert str(repair).startswith("engines[-].calibration: {")
    assert "saturation" in verified.failures[0].hint
    assert any("repaired by calibration on the run's training data" in line for line in drift_text.findings(section))
    assert sorted(Path().rglob("*.onnx")) == before


@dataclass(frozen=True)
class Repaired:
    """What a compiler gets wrong, what is tried of it in order, and the change of the spec that the last one is."""

    name: str
    precision: str
    wrong: Wrong
    tried: tuple[str, ...]
    change: str


REPAIRED = (
    Repaired("a block in fp32", "fp16", in_half, ("layer2.0.se in fp32",), f'engines[-].keep_fp32: ["{MODULE}"]'),
    Repaired(
        "leaving out a pass",
        "fp32",
        squeezed_by_a_pool,
        tuple(f"leaving out the pass {name}" for name in OnnxRuntime.passes),
        'export.lowering: ["linear_to_conv", "hard_sigmoid", "squeeze_hoist"]',
    ),
    Repaired(
        "fp32 at last",
        "fp16",
        beside_halves,
        ("layer2.0.se in fp32", "layer2.0 in fp32", "layer2 in fp32", "fp32"),
        'engines[-].precision: "fp32"',
    ),
)


@pytest.mark.parametrize("case", REPAIRED, ids=lambda case: case.name)
def test_a_block_that_is_compiled_wrongly_is_named_and_repaired(case, here, monkeypatch):
    wrong_block(monkeypatch, OnnxRuntime, case.wrong)
    section = pipeline.verify(rebuilt(precision=case.precision), drift=True).section
    assert (section.diagnosis.kind, section.diagnosis.site) == (
        ("compiler" if case.precision == "fp32" else "precision"),
        SITE,
    )
    assert tuple(each.what for each in section.repairs) == case.tried
    assert [each.worked for each in section.repairs] == [False] * (len(case.tried) - 1) + [True]
    assert drift_text.findings(section)[-1] == f"repaired by {case.tried[-1]}; in the spec: {case.change}"
    assert to_json(section)["drift"]["repair"]["change"] == section.repairs[-1].change


@pytest.mark.skipif(OpenVINO().probe().builds is not None, reason=str(OpenVINO().probe().builds))
def test_the_drift_of_an_openvino_engine_names_the_block_that_is_wrong(here, monkeypatch):
    wrong_block(monkeypatch, OpenVINO, always)
    section = pipeline.verify(rebuilt(backend="openvino"), drift=True).section
    assert [each.site for each in section.drift.errors if each.site] == SITES
    assert (section.drift.first.site, section.drift.first.error > 1) == (SITE, True)
    assert section.drift.before.error < 1e-4
    assert (section.diagnosis.kind, section.diagnosis.site) == ("compiler", SITE)
    assert not any(each.worked for each in section.repairs)


class Device(Runner):
    """Computes what the file in an engine of the stand-in says."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.run = numerics.runner(in_single(model))
        self.inputs = (TensorInfo(model.graph.input[0].name, ("batch", 1, 8, 8), "float32"),)
        self.outputs = tuple(TensorInfo(value.name, ("batch",), "float32") for value in model.graph.output)

    def infer(self, feeds):
        return self.run(feeds)

    def time(self, feeds, repeats):
        raise NotImplementedError

    def close(self):
        pass


def on_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT without its builder and without a GPU: an engine is its file, and a device computes that."""

    def build(self: TensorRT, file: Path, out: Path, *rest: object, **named: object) -> BuildReport:
        onnx.save(onnx.load(file), out)
        return BuildReport(0.1, {}, self.device())

    monkeypatch.setattr(TensorRT, "probe", lambda self: Capability("10.13.0", builds=None, runs=None))
    monkeypatch.setattr(TensorRT, "device", lambda self: "a stand-in")
    monkeypatch.setattr(TensorRT, "build", build)
    monkeypatch.setattr(TensorRT, "load", lambda self, engine, threads=None: Device(onnx.load(engine)))


def test_a_tensorrt_engine_that_is_right_when_all_is_looked_at_is_bisected_and_repaired(here, monkeypatch):
    on_a_stand_in(monkeypatch)
    wrong_block(monkeypatch, TensorRT, in_half, outputs=2)
    section = pipeline.verify(rebuilt(backend="tensorrt", precision="fp16"), drift=True).section
    assert "one place at a time" in section.drift.how
    # The bisect looks at few of the places, among them the last.
    assert len(section.drift.errors) < 7
    assert (section.drift.first.site, section.diagnosis.kind, section.diagnosis.site) == (SITE, "precision", SITE)
    (repair,) = section.repairs
    assert (repair.what, repair.worked, repair.change) == (
        "layer2.0.se in fp32",
        True,
        {"engines[-].keep_fp32": [MODULE]},
    )
    assert drift_text.findings(section)[-1] == (
        f'repaired by layer2.0.se in fp32; in the spec: engines[-].keep_fp32: ["{MODULE}"]'
    )


def wrong_weight(module: torch.fx.GraphModule) -> None:
    """Turn round the weights of a block's last convolution, as a compiler would that packs them wrongly."""
    (node,) = (
        node
        for node in module.graph.nodes
        if node.target is torch.ops.aten.conv2d.default and graph.path_of(node).endswith(f"{MODULE}.fc2")
    )
    weight = graph.constant(module, node.args[1])
    weight.mul_(-8)


class Compiled(Runner):
    """A network that stands in for the package that is compiled of it."""

    inputs = (TensorInfo("input", ("batch", 1, 8, 8), "float32"),)
    outputs = (TensorInfo("logits", ("batch", 10), "float32"),)

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def infer(self, feeds):
        with torch.inference_mode():
            return {"logits": self.network(torch.from_numpy(feeds["input"])).numpy()}

    def time(self, feeds, repeats):
        raise NotImplementedError

    def close(self):
        pass


def test_a_network_that_is_compiled_wrongly_is_looked_into_at_blocks_and_ends_of_stages(here, monkeypatch):
    made: dict[str, torch.nn.Module] = {}

    def build(self, network, shape, out, options, progress=None):
        wrong_weight(network)
        out.write_text(str(len(made)))
        made[out.read_text()] = network
        return BuildReport(0.1, {"fp32": 15}, self.device())

    monkeypatch.setattr(Inductor, "build_network", build)
    monkeypatch.setattr(Inductor, "load", lambda self, engine, threads=None: Compiled(made[engine.read_text()]))
    section = pipeline.verify(rebuilt(backend={"backend": "inductor", "target": "cpu"}), drift=True).section
    names = [each.name for each in section.drift.errors]
    assert [name for name in names if name in SITES] == SITES
    assert [name.partition(" (")[0] for name in names if name.startswith("end")] == [
        f"end of stage {number}" for number in (1, 2, 3)
    ]
    assert (section.drift.first.site, section.drift.first_site) == (SITE, SITE)
    assert section.drift.before.error < 1e-4
    assert (section.diagnosis.kind, section.diagnosis.site) == ("compiler", SITE)
    assert [each.what for each in section.repairs] == ["leaving out the pass squeeze_hoist"]
