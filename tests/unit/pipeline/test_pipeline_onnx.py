"""The verbs on an ONNX file: what is read, what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.export import export
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.spec.export import Export
from sesurgery.spec.spec import Spec
from sesurgery.workspace import require_intact
from tests.fixtures.talk import RecordingTalk

SHAPE = (1, 8, 8)
SPEC = """\
version: 1
model: {{source: {source}}}
input: {{shape: [1, 8, 8]}}
surgery:
  - insert: {{block: se, reduction: 4}}
    at: residual
    expect: 3
"""
PYTHON = 'python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}'


def spec(folder: Path, source: str) -> Spec:
    path = folder / f"{source.split(',')[0]}.yaml"
    path.write_text(SPEC.format(source=source))
    return pipeline.load_spec(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untouched network of the spec, exported."""
    folder = tmp_path_factory.mktemp("plain")
    network = pipeline.plan(spec(folder, PYTHON)).network.module
    export(network, SHAPE, folder / "net.onnx", Export(check_batches=(1,)))
    return folder / "net.onnx"


def answer(path: Path) -> np.ndarray:
    image = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


@pytest.mark.slow
def test_a_plan_of_a_file_and_of_its_network_are_one(plain: Path) -> None:
    of_file = pipeline.plan(spec(plain.parent, "onnx, name: net.onnx"))
    of_network = pipeline.plan(spec(plain.parent, PYTHON))
    rows = [[(site.key, site.stage, site.channels) for site in one.plan.sites] for one in (of_file, of_network)]
    assert rows[0] == rows[1]
    assert of_file.sites == of_network.sites
    assert of_file.before.macs == of_network.before.macs
    assert of_file.to_dict()["totals"]["params_after"] > of_file.before.params


@pytest.mark.slow
def test_a_file_beside_the_spec_becomes_an_export_with_its_manifest(plain: Path, tmp_path: Path) -> None:
    given = spec(plain.parent, "onnx, name: net.onnx")
    made = pipeline.apply_onnx(pipeline.FileRequest(given, pipeline.Workspace(tmp_path), "onnx.yaml"))
    assert made.path == tmp_path / "export" / "onnx.onnx"
    manifest = require_intact(made.path)
    assert manifest.command == "sesurgery apply onnx.yaml"
    assert [Path(parent.path).name for parent in manifest.parents] == ["net.onnx"]
    assert manifest.plan_digest == made.planned.plan.digest
    assert made.notes == ()


@pytest.mark.slow
def test_blocks_are_made_with_progress(plain: Path, tmp_path: Path) -> None:
    given, talk = spec(plain.parent, "onnx, name: net.onnx"), RecordingTalk()
    pipeline.apply_onnx(pipeline.FileRequest(given, pipeline.Workspace(tmp_path), "onnx.yaml", talk=talk))
    assert talk.steps == {"making blocks": [(0, 3), (1, 3), (2, 3), (3, 3)]}


@pytest.mark.slow
def test_fresh_and_grafted_values_are_those_of_the_run(plain: Path, tmp_path: Path) -> None:
    given, workspace = spec(plain.parent, PYTHON), pipeline.Workspace(tmp_path)
    run = pipeline.apply(given, workspace, "python.yaml").folder
    pipeline.export(run, workspace)
    fresh = pipeline.apply_onnx(
        pipeline.FileRequest(given, workspace, "python.yaml", file=plain, out=tmp_path / "fresh.onnx")
    )
    grafted = pipeline.apply_onnx(
        pipeline.FileRequest(given, workspace, "python.yaml", file=plain, out=tmp_path / "g.onnx", weights=run)
    )
    expected = answer(workspace.exports / f"{run.name}.onnx")
    np.testing.assert_allclose(answer(fresh.path), expected, atol=1e-5)
    np.testing.assert_allclose(answer(grafted.path), expected, atol=1e-5)


@pytest.mark.slow
def test_a_run_without_weights_for_a_site_is_se401(plain: Path, tmp_path: Path) -> None:
    given, workspace = spec(plain.parent, PYTHON), pipeline.Workspace(tmp_path)
    run = pipeline.apply(given, workspace, "python.yaml").folder
    (plain.parent / "other.yaml").write_text(SPEC.format(source="onnx, name: net.onnx") + "    name: attention\n")
    other = pipeline.load_spec(plain.parent / "other.yaml")
    with pytest.raises(SesurgeryError, match=r"SE401.*there are no weights called 'layer1.0.attention.\*'"):
        pipeline.apply_onnx(
            pipeline.FileRequest(other, workspace, "other.yaml", weights=run, out=tmp_path / "out.onnx")
        )
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_the_file_to_be_changed_is_never_written_over(plain: Path) -> None:
    before = plain.read_bytes()
    with pytest.raises(SesurgeryError, match=r"SE405.*is an input of the file that would replace it"):
        pipeline.apply_onnx(
            pipeline.FileRequest(spec(plain.parent, "onnx, name: net.onnx"), pipeline.Workspace(), "x.yaml", out=plain)
        )
    assert plain.read_bytes() == before


@pytest.mark.slow
def test_an_onnx_network_makes_no_run(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE302.*cannot be trained"):
        pipeline.apply(spec(plain.parent, "onnx, name: net.onnx"), pipeline.Workspace(tmp_path), "onnx.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_shown_where_the_spec_names_it(tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"onnx.yaml:2:29: error\[SE402\]"):
        pipeline.plan(spec(tmp_path, "onnx, name: nowhere.onnx"))


def test_a_spec_of_another_source_needs_the_file() -> None:
    given = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "timm", "name": "resnet18"},
            "input": {"shape": [3, 8, 8]},
            "surgery": [{"insert": "se", "at": "residual"}],
        }
    )
    with pytest.raises(SesurgeryError, match=r"SE302.*comes from timm"):
        pipeline.apply_onnx(pipeline.FileRequest(given, pipeline.Workspace(), "x.yaml"))


def test_weights_above_the_limit_stand_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = numpy_helper.from_array(np.arange(4096, dtype=np.float32), "w")
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4096]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "net", value[:1], value[1:], [weight])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    monkeypatch.setattr(onnx_io, "LIMIT", 1000)
    onnx_io.save(model, tmp_path / "net.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    loaded = onnx_io.load(tmp_path / "net.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), numpy_helper.to_array(weight))
    assert torch.tensor(answer_of(tmp_path / "net.onnx")).equal(torch.arange(4096.0))


def answer_of(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(4096, np.float32)})[0]
