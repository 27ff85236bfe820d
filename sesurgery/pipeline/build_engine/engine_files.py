"""Where an engine is asked for, an ONNX file stands for the engine that is built of it."""

from __future__ import annotations

from pathlib import Path

from sesurgery.diagnostics import fail
from sesurgery.spec.engines import Engine
from sesurgery.talk import Silent, Talk
from sesurgery.workspace import EngineManifest, is_engine, read_manifest, run_folder
from sesurgery.workspace.folders import Workspace


def as_engine(path: Path, workspace: Workspace, like: Engine | None = None, talk: Talk | None = None) -> Path:
    """An engine as it is; of an ONNX file the engine built of it, where the one in engines/ is not up to date.

    It is built as `like` says, and left out as `sesurgery build-engine FILE` does: by ONNX Runtime in fp32.
    """
    if path.suffix != ".onnx" or is_engine(path):
        return path
    if not path.is_file():
        raise fail("SE402", f"{path} is not there", "name an engine or an ONNX file")
    # Verbs that are given an engine do not pay for a builder.
    from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines

    (built,) = build_engines(EnginesRequest(path, workspace, (like,) if like else (), talk=talk or Silent()))
    return built.path


def has_run(engine: Path) -> bool:
    """Whether an engine came from a run, so that a trained model and its data are known; raises SE401 for no engine."""
    return run_folder(engine, read_manifest(engine, EngineManifest)) is not None
