"""A bounded part of `make fuzz`: the same cases every time, a fixed number of each target."""

import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fixtures.sharing import Once

from tests.fuzz import worker
from tests.fuzz.fuzz import GOALS, run
from tests.fuzz.oracle import cli
from tests.fuzz.targets import artefacts

SEED = 20170905
CASES = {
    "spec-grammar": 60, "spec-bytes": 60, "onnx-odd": 30, "onnx-structure": 60, "onnx-bits": 60, "image": 60,
    "checkpoint": 20, "manifest": 16, "measurement": 8, "interface": 16, "metrics": 4, "run-folder": 12,
    "file-gates": 20, "file-against": 10,
}  # fmt: skip
"""Of each target, some 40 seconds of processor time in all."""


@pytest.fixture(scope="session")
def prepared(tiny: Path, once: Once) -> dict[str, Path]:
    """The workspace of all tests under the names that the targets use, measured; and the networks that are changed."""

    def make() -> None:
        shutil.copytree(tiny, ".", dirs_exist_ok=True)
        for verb in ("verify", "bench"):
            assert cli(verb, artefacts.named(artefacts.ENGINE, Path())).kind == "done"
        artefacts.complete()

    def networks() -> None:
        for name in ("tiny", "tiny.plain"):
            shutil.copy(tiny / "export" / f"{name}.onnx", ".")

    return {"made": once("fuzz", make), "networks": once("fuzz-networks", networks)}


@pytest.mark.slow
def test_nothing_bad_comes_of_what_nobody_meant(prepared, tmp_path):
    tally = run(list(CASES), SEED, tmp_path, seconds=math.inf, last=CASES, prepared=prepared)
    assert tally.bad == []
    assert {target: counts.total() for target, counts in tally.counts.items()} == CASES
    # Cases that are all refused at the door, or all let through, try little.
    for start in ("spec", "onnx", "image", "", "file-gates"):
        kinds = sum((counts for target, counts in tally.counts.items() if target.startswith(start)), Counter())
        assert min(kinds["done"], kinds["refused"]) > 0, start


def test_every_target_is_in_the_bounded_part():
    assert set(CASES) == set(GOALS)


@pytest.mark.parametrize(
    ("error", "why"), [(ValueError("no digits"), "ValueError: no digits"), (MemoryError(), "MemoryError")], ids=repr
)
def test_an_error_that_is_no_diagnostic_is_bad(error, why, tmp_path, monkeypatch):
    def broken(*given):
        raise error

    monkeypatch.setattr("sesurgery.pipeline.load_spec", broken)
    answer = worker.case("spec-grammar", SEED, 0, tmp_path / "case")
    assert answer["kind"] == "bad"
    assert answer["why"].startswith(why)
