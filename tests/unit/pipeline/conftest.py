"""The run that the pipeline's tests work on; every test that changes something works on a copy of the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.sharing import Once
from fixtures.tiny import RUN

from sesurgery import pipeline
from sesurgery.pipeline import EnginesRequest


@pytest.fixture(scope="session")
def built(tiny: Path, once: Once) -> Path:
    """The trained run with an fp16 engine beside the fp32 one. Not to be changed."""

    def make() -> None:
        shutil.copytree(tiny, ".", copy_function=shutil.copy2, dirs_exist_ok=True)
        pipeline.build_engines(EnginesRequest(RUN, pipeline.Workspace(), (pipeline.engine({"precision": "fp16"}),)))

    return once("built", make)


@pytest.fixture
def here(built: Path, copied: Callable[[Path], Path]) -> Path:
    """A copy of that folder as the current one."""
    return copied(built)
