"""docs/faults.md: its table is what the benchmark found; a verb that writes files has a row or is said to have none."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sesurgery.cli import program

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())["verbs"]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults", ROOT / "benchmarks" / "faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look their own module up.
    monkeypatch.setitem(sys.modules, "faults", module)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_benchmark_found(faults: ModuleType) -> None:
    assert faults.table(ROWS) in PAGE


def test_every_cell_was_tried_three_times_and_nothing_was_lost(faults: ModuleType) -> None:
    cells = {(verb, way): row["cells"][way] for verb, row in ROWS.items() for way in faults.WAYS}
    assert {place: cell["wrong"] for place, cell in cells.items() if cell["wrong"]} == {}
    assert min(cell["tried"] for cell in cells.values()) >= 3
    # A signal at each point of the command, and after its end.
    struck = {verb: len(faults.strikes(row["points"], faults.VERBS[verb].most)) for verb, row in ROWS.items()}
    assert [
        place for place, cell in cells.items() if place[1] in faults.KILLS and cell["tried"] < struck[place[0]]
    ] == []


def test_only_what_is_made_of_other_rows_is_struck_at_some_points_alone(faults: ModuleType) -> None:
    assert [name for name, verb in faults.VERBS.items() if verb.most] == ["run", "demo"]
    assert faults.strikes(40, 8) == [0, 6, 11, 17, 23, 29, 34, 40]
    assert faults.strikes(4, 8) == faults.strikes(4, None) == [0, 1, 2, 3, 4]
    assert faults.strikes(1, None) == [0, 1, 0]


def test_every_cell_names_the_commit_that_it_was_tried_at(faults: ModuleType) -> None:
    named = {row["cells"][way]["commit"] for row in ROWS.values() for way in row["cells"]}
    # A tree that was changed has another mark behind its commit.
    assert [commit for commit in named if not re.fullmatch("[0-9a-f]{12}", commit)] == []


def test_every_verb_has_a_row_or_the_page_says_why_not(faults: ModuleType) -> None:
    rows, prose = {row.split(" ")[0] for row in ROWS}, PAGE.partition("## Tried")[2].replace("\n", " ")
    missing = [verb for verb in program.commands if verb not in rows and f"`{verb}`" not in prose]
    assert missing == []
    assert [verb for verb in faults.VERBS if verb not in ROWS and f"`{verb}`" not in prose] == []


def test_every_row_is_a_command_that_there_is(faults: ModuleType) -> None:
    assert {verb.words.split(" ")[0] for verb in faults.VERBS.values()} <= program.commands.keys()
