"""A workspace that was moved or copied is the same workspace: every verb goes on from inside it, seals and all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.pipeline import BenchRequest, EnginesRequest, Workspace
from sesurgery.workspace import EngineManifest, manifest_path, read_manifest, require_intact, run_folder

RUN = Path("runs/tiny")
FP32 = Path("engines/tiny.onnxruntime.fp32.onnx")


@pytest.fixture(params=["moved", "copied"])
def elsewhere(request, here: Path) -> Path:
    """The folder at another depth, as the current one; where it was, another one of that name may have come."""
    target = here.parent / "deep" / "er" / "copy"
    target.parent.mkdir(parents=True)
    if request.param == "moved":
        os.chdir(here.parent)
        shutil.move(here, target)
    else:
        shutil.copytree(here, target)
        for path in ("runs", "export", "engines"):
            shutil.rmtree(here / path)
    # `here` changes back.
    os.chdir(target)
    return target


def test_every_verb_goes_on_in_it(elsewhere: Path) -> None:
    assert pipeline.verify(FP32).section.passed
    assert pipeline.bench(BenchRequest(FP32, Workspace())).against == Path("engines/tiny.plain.onnxruntime.fp32.onnx")
    made = pipeline.write_report(RUN, Workspace())
    assert [section.passed for section in made.report.engines] == [None, True]
    assert made.report.command == "sesurgery run tiny.yaml"
    assert pipeline.export(RUN, Workspace(), again=False).worst is None
    assert [built.why for built in pipeline.build_engines(EnginesRequest(RUN, Workspace()))] == [None]


def test_all_of_it_is_still_made_here(elsewhere: Path) -> None:
    manifests = sorted(elsewhere.rglob("*.manifest.json"))
    assert len(manifests) >= 5
    for path in manifests:
        artifact = path.with_name(path.name.removesuffix(".manifest.json"))
        made = require_intact(artifact)
        assert made.made_here
        assert all(parent.is_file() for parent in made.parent_files(artifact))


def test_it_is_reached_from_any_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elsewhere / "engines")
    engine = Path(FP32.name)
    assert run_folder(engine, read_manifest(engine, EngineManifest)) == Path("../runs/tiny")
    assert pipeline.verify(engine).section.passed
    assert (elsewhere / RUN / "reports" / f"{FP32.name}.parity.json").is_file()


def test_no_manifest_holds_a_path_of_the_machine(elsewhere: Path) -> None:
    for path in elsewhere.rglob("*.manifest.json"):
        said = json.loads(path.read_text())
        assert str(elsewhere.parent.parent.parent) not in json.dumps({**said, "command": ""})


def test_where_a_folder_is_a_link_its_neighbours_are_found(here: Path) -> None:
    (here.parent / "disk").mkdir()
    shutil.move(here / "engines", here.parent / "disk" / "engines")
    Path("engines").symlink_to(here.parent / "disk" / "engines")
    assert manifest_path(FP32).is_file()
    assert pipeline.verify(FP32).section.passed
