"""An engine is built again for a reason, and each reason is told; one from elsewhere is refused unless asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from sesurgery import pipeline
from sesurgery.backends import base
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import BenchRequest, EnginesRequest, Workspace
from sesurgery.pipeline.build_engine.request import ingredients_of
from sesurgery.serving import ingredients, loadable
from sesurgery.workspace import manifest_path

NET = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 1, 4, 4] x) => (float[batch, 1, 4, 4] y)
<float[1, 1, 1, 1] w = {2.0}> { c = Conv(x, w) y = Relu(c) }
"""
ENGINE = Path("engines/net.onnxruntime.fp32.onnx")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the current folder, with an engine of it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(NET), "net.onnx")
    assert build().why == "it does not exist yet"
    return Path("net.onnx")


def build(again: bool = False, lowering: tuple[str, ...] | None = None, path: str = "net.onnx", **asked: object):
    return pipeline.build_engine(
        pipeline.BuildRequest(Path(path), pipeline.engine(asked), Workspace(), lowering=lowering, again=again)
    )


def test_the_same_again_builds_nothing(net: Path) -> None:
    before = ENGINE.stat().st_mtime_ns, manifest_path(ENGINE).read_text()
    built = build()
    assert built.why is None
    assert built.report.convolutions == {"fp32": 1}
    assert (ENGINE.stat().st_mtime_ns, manifest_path(ENGINE).read_text()) == before


def test_what_was_asked_to_be_built_again_is(net: Path) -> None:
    before = ENGINE.stat().st_mtime_ns
    assert build(again=True).why == "it was asked for"
    assert ENGINE.stat().st_mtime_ns > before


def change_the_file(monkeypatch: pytest.MonkeyPatch | None) -> dict[str, object]:
    model = onnx.load("net.onnx")
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((1, 1, 1, 1), 3, np.float32), "w"))
    onnx.save(model, "net.onnx")
    return {}


def change_the_batch(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    return {"batch": {"max": 8}}


def change_an_option(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    return {"backend": {"backend": "onnxruntime", "provider": "cuda"}}


def change_the_passes(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    return {"lowering": ("squeeze_hoist",)}


def change_the_version(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(OnnxRuntime, "probe", lambda self: base.Capability("99.0", None, None))
    return {}


def change_the_processor(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(ingredients, "cpu_kind", lambda: "another processor (avx9)")
    return {}


def change_the_program(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(ingredients.importlib.metadata, "version", lambda package: "99.0")
    return {}


def damage_the_engine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    ENGINE.write_bytes(ENGINE.read_bytes() + b"\0")
    return {}


def lose_the_manifest(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    manifest_path(ENGINE).unlink()
    return {}


def lose_the_engine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    ENGINE.unlink()
    return {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_the_file, "net.onnx, which it was built from, is not what it was"),
        (change_the_batch, "what was asked for changed"),
        (change_an_option, "what was asked for changed"),
        (change_the_passes, "the lowering passes changed"),
        (change_the_version, "the backend's version changed"),
        (change_the_processor, "the device changed"),
        (change_the_program, "the version of sesurgery changed"),
        (damage_the_engine, "is not the file its manifest describes"),
        (lose_the_manifest, "has no manifest"),
        (lose_the_engine, "it does not exist yet"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_any_change_builds_again_and_says_why(change, why: str, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = change(monkeypatch)
    assert why in str(build(**asked).why)
    assert build(**asked).why is None


def test_other_weights_beside_the_file_are_another_file(net: Path) -> None:
    weights = {"location": "net.data", "save_as_external_data": True, "size_threshold": 0}
    change_the_file(None)
    onnx.save(onnx.load("net.onnx"), "large.onnx", **weights)
    assert build(path="large.onnx").why == "it does not exist yet"
    assert build(path="large.onnx").why is None
    header = Path("large.onnx").read_bytes()
    Path("net.data").write_bytes(np.full(1, 5, np.float32).tobytes())
    assert Path("large.onnx").read_bytes() == header
    built = build(path="large.onnx")
    assert built.why == "the ONNX file changed"
    with OnnxRuntime().load(built.path) as runner:
        assert runner.infer({"x": np.ones((1, 1, 4, 4), np.float32)})["y"].max() == 5


def test_other_samples_to_calibrate_on_are_another_engine(net: Path) -> None:
    for value in (1, 2):
        np.savez("samples.npz", x=np.full((8, 1, 4, 4), value, np.float32))
        chosen = pipeline.engine({"precision": "int8", "calibration": {"file": "samples.npz"}})
        found = ingredients_of(net, chosen)
        if value == 1:
            before = found
    assert {what for what in found if found[what] != before[what]} == {ingredients.CALIBRATION}


def test_what_was_measured_of_an_engine_goes_with_it(here) -> None:
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    pipeline.verify(engine)
    kept = Path("runs/tiny/reports/tiny.onnxruntime.fp32.onnx.parity.json")
    assert kept.is_file()
    pipeline.build_engines(EnginesRequest(Path("runs/tiny"), Workspace()))
    assert kept.is_file()
    pipeline.build_engines(EnginesRequest(Path("runs/tiny"), Workspace(), again=True))
    assert not kept.exists()


USES = [
    pytest.param(lambda engine, **how: pipeline.verify(engine, **how), id="verify"),
    pytest.param(lambda engine, **how: pipeline.bench(BenchRequest(engine, Workspace(), **how)), id="bench"),
    pytest.param(lambda engine, **how: pipeline.package(engine, Path("triton"), **how), id="package"),
    pytest.param(lambda engine, **how: pipeline.predict(engine, [Path("digit.png")], **how), id="predict"),
]


@pytest.fixture
def image(here) -> None:
    from PIL import Image

    Image.new("L", (8, 8)).save("digit.png")


def rewrite(engine: Path, what: str, value: str) -> None:
    manifest = json.loads(manifest_path(engine).read_text())
    manifest["details"]["ingredients"][what] = value
    manifest_path(engine).write_text(json.dumps(manifest))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("what", "value"),
    [(ingredients.VERSION, "onnxruntime 0.1"), (ingredients.DEVICE, "another processor")],
    ids=["version", "device"],
)
def test_an_engine_from_elsewhere_is_refused_unless_asked_for(use, what: str, value: str, image) -> None:
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    rewrite(engine, what, value)
    with pytest.raises(SesurgeryError, match=rf"SE603.*from elsewhere: {what} was {value}") as caught:
        use(engine)
    assert "--foreign" in str(caught.value.diagnostics[0].hint)
    use(engine, foreign=True)


@pytest.mark.parametrize("use", USES)
def test_an_engine_without_a_manifest_is_refused_whatever_is_asked(use, image) -> None:
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    manifest_path(engine).unlink()
    # To `bench` it is an ONNX file then, and not one that was exported.
    with pytest.raises(SesurgeryError, match=r"SE401.*has no manifest|SE605.*has convolutions that are not fp32"):
        use(engine, foreign=True)


def test_the_number_of_free_cores_makes_no_engine_foreign(here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3, 4})
    loadable.require_loadable(Path("engines/tiny.onnxruntime.fp32.onnx"))
