"""The trained run with an engine of each kind that a server takes; every test works on a copy of the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.sharing import Once
from fixtures.tiny import RUN

from sesurgery import pipeline
from sesurgery.pipeline import EnginesRequest

ENGINES = (
    {"backend": "onnxruntime", "batch": {"min": 1, "opt": 4, "max": 16}},
    {"backend": "openvino", "batch": {"min": 1, "opt": 1, "max": 16}},
)


@pytest.fixture(scope="session")
def served(tiny: Path, once: Once) -> Path:
    """The trained run with fp32 engines of ONNX Runtime and OpenVINO. Not to be changed."""
    pytest.importorskip("openvino")

    def make() -> None:
        shutil.copytree(tiny, ".", copy_function=shutil.copy2, dirs_exist_ok=True)
        pipeline.build_engines(
            EnginesRequest(RUN, pipeline.Workspace(), tuple(pipeline.engine(wanted) for wanted in ENGINES))
        )

    return once("served", make)


@pytest.fixture
def here(served: Path, copied: Callable[[Path], Path]) -> Path:
    """A copy of that folder as the current one."""
    return copied(served)
