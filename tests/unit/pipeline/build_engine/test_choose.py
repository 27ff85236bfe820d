"""`auto`: what it tries, what it leaves and why, and that the engine it keeps is the fastest within parity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from sesurgery import pipeline
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Array, Runner
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.openvino import OpenVINO
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import BenchRequest, EnginesRequest, Workspace
from sesurgery.pipeline.build_engine import choose as module
from sesurgery.spec.latency import Latency
from sesurgery.workspace import read_manifest

pytest.importorskip("openvino")

NET = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 3, 16, 16] x) => (float[batch, 8] y)
<float[8, 3, 3, 3] w> { c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }
"""
PAIR = {"backend": "auto", "among": ["onnxruntime", "openvino"]}
BRIEF = {"rounds": 10, "repeats": 2, "placements": 4, "half_width": None, "warmup_seconds": 0}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Races without a spec, which have its defaults, are short here: what they measure is of no account."""
    monkeypatch.setattr(module, "Latency", lambda **given: Latency(**given, **BRIEF))


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = onnx.parser.parse_model(NET)
    array = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    del model.graph.value_info[:]
    onnx.save(model, "net.onnx")
    return Path("net.onnx")


class Slowed(Runner):
    """A real engine that says every run took ten seconds, more than a real run takes on however busy a machine."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.inputs, self.outputs = runner, runner.inputs, runner.outputs

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self.runner.infer(feeds)

    def time(self, feeds: Mapping[str, Array], repeats: int) -> np.ndarray:
        return np.full(repeats, 10.0)

    def close(self) -> None:
        self.runner.close()


class Wrong(Slowed):
    """A real engine that is right for one sample and wrong for several."""

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = self.runner.infer(feeds)
        return {name: array + (len(array) > 1) for name, array in found.items()}


def change(monkeypatch: pytest.MonkeyPatch, backend: type, kind: type[Slowed]) -> None:
    load = backend.load
    monkeypatch.setattr(backend, "load", lambda self, engine, threads=None: kind(load(self, engine, threads)))


def build(net: Path, **asked: object):
    return pipeline.build_engine(pipeline.BuildRequest(net, pipeline.engine({"backend": PAIR, **asked}), Workspace()))


def engines() -> list[str]:
    return sorted(path.name for path in Path("engines").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    ("slow", "fast", "kept"),
    [(OnnxRuntime, "openvino", "xml"), (OpenVINO, "onnxruntime", "onnx")],
    ids=["openvino", "onnxruntime"],
)
def test_the_fastest_is_kept_and_the_other_taken_away(slow, fast, kept, net: Path, monkeypatch) -> None:
    change(monkeypatch, slow, Slowed)
    built = build(net)
    assert built.path == Path(f"engines/net.{fast}.fp32.auto.{kept}")
    beside = [built.path.with_suffix(".bin").name] if kept == "xml" else []
    assert engines() == sorted([built.path.name, f"{built.path.name}.manifest.json", *beside])
    first, second = built.tried
    assert (first.backend, first.left) == (fast, None)
    assert str(second.left).startswith("slower: ")
    assert first.median_ms is not None
    assert second.median_ms is not None
    assert second.median_ms > first.median_ms


def test_profiles_say_at_which_batches_candidates_are_compared_and_raced(net: Path) -> None:
    built = build(net, shapes=["x=8,16,16x3x16x16"])
    assert {attempt.backend for attempt in built.tried} == {"onnxruntime", "openvino"}
    assert all(attempt.max_abs is not None and attempt.median_ms is not None for attempt in built.tried)


def test_the_fastest_is_left_where_it_falls_short_of_parity(net: Path, monkeypatch) -> None:
    change(monkeypatch, OpenVINO, Wrong)
    built = build(net)
    assert built.path.name == "net.onnxruntime.fp32.auto.onnx"
    left = {each.backend: each.left for each in built.tried}
    assert "falls short of parity: output 'y' at batch 32: max_abs: asked <= 0.001, found 1" in str(left["openvino"])
    assert left["onnxruntime"] is None


def test_nothing_is_kept_where_nothing_is_right(net: Path, monkeypatch) -> None:
    change(monkeypatch, OpenVINO, Wrong)
    with pytest.raises(
        SesurgeryError, match=r"SE604.*no backend is left to build net\.onnx(.|\n)*openvino: falls short"
    ):
        build(net, backend={"backend": "auto", "among": ["openvino"]})
    assert engines() == []


def test_two_that_cannot_be_told_apart_leave_the_first(net: Path, monkeypatch) -> None:
    race = module.race
    plans = []

    def even(files, feeds, plan, *others):
        plans.append(plan)
        return race([files[0], files[0]], feeds, plan, *others)

    def zero(placements, confidence):
        return module.Tax(0.0, -0.01, 0.01, confidence, (), ())

    monkeypatch.setattr(module, "race", even)
    monkeypatch.setattr("sesurgery.verification.latency.estimate_tax", zero)
    built = build(net)
    assert built.tried[0].backend == "onnxruntime"
    assert str(built.tried[1].left).startswith("not significantly different from onnxruntime: +0.0 % (-1.0 to +1.0 %)")
    assert plans == [Latency(batch=1, **BRIEF)]


def test_every_backend_that_is_not_tried_says_why(net: Path) -> None:
    built = build(net, backend="auto")
    left = {each.backend: each.left for each in built.tried}
    assert set(left) == set(BACKENDS.names())
    assert list(left.values()).count(None) == 1
    for name, why in left.items():
        ability = BACKENDS.load(name)().probe()
        if ability.builds or ability.runs:
            assert why == (ability.builds or ability.runs)


def test_the_choice_is_kept_and_made_again_when_something_changed(net: Path) -> None:
    first = build(net)
    again = build(net)
    assert again.why is None
    assert again.path == first.path
    assert again.tried == first.tried
    assert build(net, batch={"max": 8}).why is not None


def test_the_report_and_the_manifest_tell_of_the_choice(net: Path) -> None:
    built = build(net)
    manifest = read_manifest(built.path)
    assert manifest.details.backend in ("onnxruntime", "openvino")
    assert "chosen by auto (" in manifest.details.notes[-1]
    assert [each.backend for each in manifest.details.choice.tried] == [each.backend for each in built.tried]


def test_an_engine_that_was_asked_for_by_its_backend_is_left_alone(net: Path, monkeypatch) -> None:
    mine = pipeline.build_engine(
        pipeline.BuildRequest(net, pipeline.engine({"backend": "openvino", "batch": {"max": 8}}), Workspace())
    )
    before = mine.path.read_bytes()
    change(monkeypatch, OpenVINO, Slowed)
    build(net)
    assert mine.path.read_bytes() == before


def test_an_unknown_backend_among_those_to_try_is_named(net: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE105.*unknown backend 'openvin'") as caught:
        build(net, backend={"backend": "auto", "among": ["openvin"]})
    assert caught.value.diagnostics[0].hint == "did you mean 'openvino'?"


def test_of_a_run_the_trained_model_is_what_counts(here, monkeypatch) -> None:
    change(monkeypatch, OnnxRuntime, Slowed)
    asked = pipeline.engine({"backend": PAIR, "batch": {"max": 256}})
    (built,) = pipeline.build_engines(EnginesRequest(Path("runs/tiny"), Workspace(), (asked,)))
    assert built.path.name == "tiny.openvino.fp32.auto.xml"
    # Verified on the held-out samples, which left its trace beside the run; what was not kept left none.
    kept = {path.name for path in Path("runs/tiny/reports").iterdir()}
    assert kept == {f"{built.path.name}.parity.json", "plan.cost.json"}
    assert pipeline.verify(built.path).failures == ()
    assert pipeline.bench(BenchRequest(built.path, Workspace())).against.name == "tiny.plain.openvino.fp32.auto.xml"


def test_a_spec_may_leave_the_choice_to_auto(empty) -> None:
    text = (
        Path("tiny.yaml")
        .read_text()
        .replace("{backend: onnxruntime, ", "{backend: {backend: auto, among: [openvino]}, ")
        .replace("epochs: 4", "epochs: 1")
    )
    Path("auto.yaml").write_text(text)
    finished = pipeline.run(pipeline.load_spec("auto.yaml"), Workspace(), "auto.yaml")
    assert finished.failures == ()
    (section,) = finished.reported.report.engines
    assert (section.backend, section.parity != ()) == ("openvino", True)


def test_no_file_is_lowered_for_a_choice(net: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE105.*unknown backend 'auto'"):
        pipeline.lower(pipeline.LowerRequest(net, Path("lowered.onnx"), "auto"))
