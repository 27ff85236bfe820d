"""Where the committed figures come from, and how a benchmark says so."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WITH_A_COMMIT = (
    "blocks_first",
    "fashion_mnist",
    "kill_and_resume",
    "study_statistics",
    *(f"studies/{path.stem}" for path in sorted((RESULTS / "studies").glob("*.json"))),
    "training",
    "training_memory",
    "zoo_specs",
)


@pytest.fixture(scope="module")
def provenance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("provenance", ROOT / "benchmarks" / "provenance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", WITH_A_COMMIT)
def test_results_name_machine_command_and_commit(name: str) -> None:
    """`commit` is what was measured; older files name the commit that brought them, `recorded_in`."""
    found = json.loads((RESULTS / f"{name}.json").read_text())
    assert "cores" in found["device"]
    assert found["command"].startswith(("python benchmarks/", "sesurgery "))
    assert found.get("commit") or found.get("recorded_in")


def test_every_killed_training_ended_as_if_it_had_not_been_and_the_page_says_how_many() -> None:
    found = json.loads((RESULTS / "kill_and_resume.json").read_text())
    assert len(found["moments"]) == found["kills"] >= 20
    within = sum(bool(moment["batches"]) for moment in found["moments"])
    assert found["within_an_epoch"] == within > 0
    assert found["runs_that_end_the_same"] == found["runs"] > 0
    page, runs = (ROOT / "docs" / "faults.md").read_text(), found["runs"]
    assert f"{found['kills']} kills, {within} of them with a checkpoint within an epoch; {runs} of {runs} runs" in page
    assert f"{len({moment['run'] for moment in found['moments']})} of the runs were killed" in page


@pytest.mark.parametrize("machine", ["quiet", "busy"])
def test_of_100_races_of_equal_engines_93_cover_zero_and_of_100_against_a_slower_one_95_leave_it_out(
    machine: str,
) -> None:
    found = json.loads((RESULTS / "race_calibration.json").read_text())["onnxruntime"][machine]
    same, slowed = ([race[kind] for race in found["found"]] for kind in ("same", "slowed"))
    covers, excludes = sum(low <= 0 <= high for _, low, high in same), sum(low > 0 for _, low, _ in slowed)
    assert len(found["found"]) == 100
    assert covers >= 93
    assert excludes >= 95
    page = " ".join((ROOT / "docs" / "decisions" / "0013-latency-over-placements.md").read_text().split())
    assert f"{covers} intervals cover zero" in page or f"{covers} of 100 cover zero" in page


def test_the_cost_of_a_step_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "guide.md").read_text()
    for name in ("ours", "timm"):
        found = json.loads((RESULTS / "training.json").read_text())["over_bare"][name]["processor_time"]
        value, low, high = (f"{found[key]:.3f}" for key in ("value", "low", "high"))
        assert value in page
        assert f"{low} to {high}" in page


def test_the_memory_of_training_is_that_of_the_page() -> None:
    found = json.loads((RESULTS / "training_memory.json").read_text())
    few, many = found["rows"]
    assert (few["images"], many["images"]) == (2_000, 200_000)
    assert many["megabytes"] - few["megabytes"] == pytest.approx(found["more_megabytes"], abs=0.1)
    assert found["more_megabytes"] < 32
    shown = (
        f"200,000 images took {many['megabytes']:,.0f} MB at\nits most, on 2,000 of the same {few['megabytes']:,.0f}"
    )
    assert shown in (ROOT / "docs" / "spec.md").read_text()


def test_a_command_is_what_was_typed(provenance: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(ROOT / "benchmarks" / "training.py")
    monkeypatch.setattr(sys, "argv", [script, "--network", "timm:resnet18", "two words"])
    assert provenance.command() == "python benchmarks/training.py --network timm:resnet18 'two words'"
    assert {"command", "commit", "device", "load", "versions"} == set(provenance.provenance())


def test_a_commit_says_whether_the_code_differs_from_it(
    provenance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    # Not the repository that the tests may lie in.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() is None

    def git(*words: str) -> None:
        own = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *own, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "sesurgery").mkdir()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "sesurgery" / "code.py").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = provenance.commit()
    assert len(clean) == 12
    (tmp_path / "benchmarks" / "results" / "new.json").write_text("{}\n")
    assert provenance.commit() == clean
    (tmp_path / "sesurgery" / "code.py").write_text("2\n")
    assert provenance.commit() == f"{clean}-dirty"
