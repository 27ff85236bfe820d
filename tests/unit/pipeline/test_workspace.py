"""Where artefacts lie, what is never written over, and which one is the newest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.backends import runs_here
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import EnginesRequest, Workspace
from sesurgery.workspace import manifest_path


def apply(changed: str = "", name: str = "tiny.yaml") -> Path:
    """Apply the spec, changed by a line at its end."""
    text = Path("tiny.yaml").read_text() + changed
    Path(name).write_text(text)
    return pipeline.apply(pipeline.load_spec(name), Workspace(), name).folder


def age(artifact: Path, seconds: int) -> None:
    """Let an artefact have been written that long ago."""
    then = artifact.stat().st_mtime - seconds
    os.utime(manifest_path(artifact), (then, then))


def test_applying_one_spec_twice_uses_one_folder_while_nothing_was_trained(empty):
    assert apply() == apply() == Path("runs/tiny")


def test_a_trained_run_is_never_written_over(here):
    before = Path("runs/tiny/weights.safetensors").read_bytes()
    assert apply() == Path("runs/tiny-2")
    assert Path("runs/tiny/weights.safetensors").read_bytes() == before


def test_training_that_was_only_begun_is_not_written_over_either(empty):
    folder = apply()
    (folder / "train").mkdir()
    assert apply() == Path("runs/tiny-2")


def test_another_specs_run_is_never_written_over(empty):
    first = apply()
    before = (first / "plan.json").read_text()
    assert apply("export: {opset: 19}\n") == Path("runs/tiny-2")
    assert (first / "plan.json").read_text() == before


def test_a_run_whose_manifest_is_damaged_is_not_written_over(empty):
    folder = apply()
    manifest_path(folder / "weights.safetensors").write_text("{}")
    assert apply() == Path("runs/tiny-2")


def test_the_newest_run_is_the_one_written_last_whatever_its_name(empty):
    second = apply(name="zebra.yaml")
    first = apply(name="ant.yaml")
    assert Workspace().newest_run() == first
    age(first / "weights.safetensors", 60)
    assert Workspace().newest_run() == second


def test_the_newest_engine_is_one_with_blocks(here):
    newest = Workspace().newest_engine(runs_here)
    assert newest == Path("engines/tiny.onnxruntime.fp16.onnx")
    pipeline.build_engines(EnginesRequest(Path("runs/tiny"), Workspace(), plain=True))
    assert Path("engines/tiny.plain.onnxruntime.fp32.onnx").is_file()
    assert Workspace().newest_engine(runs_here) == newest
    age(newest, 3600)
    assert Workspace().newest_engine(runs_here) == Path("engines/tiny.onnxruntime.fp32.onnx")


@pytest.mark.parametrize(
    ("find", "command"),
    [
        (Workspace.newest_run, "sesurgery apply"),
        (lambda workspace: workspace.newest_engine(runs_here), "sesurgery build-engine"),
    ],
)
def test_where_there_is_nothing_yet_the_next_command_is_named(find, command, empty):
    with pytest.raises(SesurgeryError, match="SE402") as caught:
        find(Workspace())
    assert command in str(caught.value.diagnostics[0].hint)


def test_engines_of_a_run_leave_out_other_runs_and_broken_manifests(here):
    assert [path.name for path, _ in Workspace().built(Path("runs/tiny"))] == [
        "tiny.onnxruntime.fp16.onnx",
        "tiny.onnxruntime.fp32.onnx",
    ]
    manifest_path(Path("engines/tiny.onnxruntime.fp16.onnx")).write_text("{}")
    Path("engines/tiny.onnxruntime.fp32.onnx").unlink()
    assert Workspace().built(Path("runs/tiny")) == []
    assert Workspace().built(Path("runs/other")) == []
