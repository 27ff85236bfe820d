"""Manifests as typed data: kinds, paths from the artefact's folder, what other versions wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sesurgery import trust
from sesurgery.artifacts import digest_text
from sesurgery.diagnostics import SesurgeryError
from sesurgery.workspace import (
    EngineManifest,
    OnnxDetails,
    OnnxManifest,
    PackageManifest,
    Provenance,
    RunManifest,
    describe,
    manifest_path,
    read_manifest,
    relative,
)

ENGINE: dict[str, Any] = {
    "run": "runs/x",
    "plain": False,
    "onnx": "export/x.onnx",
    "backend": "onnxruntime",
    "precision": "fp32",
    "engine": {
        "backend": {"backend": "onnxruntime", "provider": "cpu"},
        "precision": "fp32",
        "batch": {"min": 1, "opt": 1, "max": 64},
        "shapes": [],
    },
    "seconds": 0.25,
    "convolutions": {"fp32": 3},
    "notes": [],
    "kept_fp32": [],
    "ingredients": {"the device": "a processor"},
}
RUN = {"spec": "x.yaml", "sites": 1, "params_before": 1, "params_after": 2, "macs_before": 3, "macs_after": 4}


def write(artifact: Path, kind: str, details: dict[str, Any], **more: Any) -> Path:
    """An artefact with a manifest as version 1 of the program wrote and sealed it, but for `more`."""
    artifact.parent.mkdir(parents=True, exist_ok=True)
    artifact.write_text("content")
    data = {
        "schema_version": 1,
        "kind": kind,
        "name": "x",
        "file": artifact.name,
        "sha256": digest_text("content"),
        "command": "sesurgery",
        "created": "2026-01-01T00:00:00.000+00:00",
        "spec_digest": None,
        "plan_digest": None,
        "parents": [{"path": "export/x.onnx", "sha256": "0" * 64}],
        "beside": [],
        "versions": {"python": "3.11"},
        "device": "a processor",
        "details": details,
        **more,
    }
    seal = trust.seal(json.dumps(data, sort_keys=True))
    manifest_path(artifact).write_text(json.dumps({**data, "seal": seal}))
    return artifact


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_manifest_of_the_version_before_is_read_and_its_seal_holds() -> None:
    engine = write(Path("engines/x.onnx"), "engine", ENGINE)
    made = read_manifest(engine, EngineManifest)
    assert made.made_here
    # It says its paths from the folder that the command ran in.
    assert (made.run_named(engine), made.onnx_file(engine)) == (Path("runs/x"), Path("export/x.onnx"))
    assert list(made.parent_files(engine)) == [Path("export/x.onnx")]


def test_a_package_was_called_an_engine_by_the_version_before() -> None:
    details = {"server": "triton", "version": 1, "engine": "engines/x.onnx", "notes": []}
    made = read_manifest(write(Path("model.onnx"), "engine", details))
    assert isinstance(made, PackageManifest)
    assert made.made_here


def test_keys_of_a_later_version_are_kept_and_are_under_the_seal() -> None:
    engine = write(Path("engines/x.onnx"), "engine", {**ENGINE, "drift": {"first": [1, 2.5]}}, colour="blue")
    made = read_manifest(engine, EngineManifest)
    assert made.made_here
    assert made.details.model_extra == {"drift": {"first": [1, 2.5]}}
    text = manifest_path(engine).read_text()
    manifest_path(engine).write_text(text.replace("2.5", "3.5"))
    assert not read_manifest(engine).made_here


@pytest.mark.parametrize(
    ("kind", "details", "why"),
    [
        (
            "engine",
            {key: value for key, value in ENGINE.items() if key != "seconds"},
            "details.seconds: Field required",
        ),
        ("engine", {**ENGINE, "notes": "none"}, "details.notes: Input should be a valid array"),
        ("run", {**RUN, "macs_after": "4"}, "details.macs_after: Input should be a valid integer"),
        ("onnx", {"nodes": 1.5}, "details.nodes: Input should be a valid integer"),
        ("spoon", {}, "does not match any of the expected tags"),
    ],
)
def test_details_of_other_types_are_one_error_that_names_the_key(kind: str, details: dict[str, Any], why: str) -> None:
    artifact = write(Path("x"), kind, details)
    with pytest.raises(SesurgeryError, match=r"SE401.*is not a manifest") as caught:
        read_manifest(artifact)
    assert why in caught.value.diagnostics[0].message


def test_another_kind_than_the_one_asked_for_is_said_so() -> None:
    weights = write(Path("weights.safetensors"), "run", RUN)
    assert read_manifest(weights, RunManifest).spec_file(weights) == Path("x.yaml")
    with pytest.raises(SesurgeryError) as caught:
        read_manifest(weights, EngineManifest)
    found = caught.value.diagnostics[0].message
    assert found == "weights.safetensors is not an engine: its manifest is that of a run's weights"


@pytest.mark.parametrize("root", [Path(), Path("deep/er"), Path("absolute")], ids=str)
def test_paths_are_those_from_the_artefact_whatever_one_calls_it(root: Path) -> None:
    root = root.resolve() if root.name == "absolute" else root
    for name in ("export/x.onnx", "runs/x/weights"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("content")
    target = root / "export" / "x.onnx"
    details = OnnxDetails(run=relative(root / "runs" / "x", target))
    made = describe(
        target, Provenance(OnnxManifest, "x", "sesurgery", parents=(root / "runs/x/weights",), details=details)
    )
    assert (made.details.run, made.parents[0].path) == ("../runs/x", "../runs/x/weights")
    assert made.run_named(target) == root / "runs" / "x"
    assert list(made.parent_files(target)) == [root / "runs/x/weights"]


def test_only_what_was_said_is_written() -> None:
    Path("x.onnx").write_text("content")
    describe(
        Path("x.onnx"),
        Provenance(OnnxManifest, "x", "sesurgery lower", details=OnnxDetails(passes=("a",), difference=None)),
    )
    data = json.loads(manifest_path(Path("x.onnx")).read_text())
    assert data["details"] == {"passes": ["a"], "difference": None}
    assert data["schema_version"] == 2
    assert read_manifest(Path("x.onnx")).made_here
