"""The pages for those who change over: what they name is there, their specs plan, and their snippets run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.spec import zoo

ROOT = Path(__file__).parent.parent
COVERAGE = ROOT / "docs" / "coverage.md"
PAGES = [COVERAGE, ROOT / "docs" / "tables.md", *sorted((ROOT / "docs" / "from").glob("*.md"))]


def blocks(page: Path, language: str, mark: str = "") -> list[str]:
    return re.findall(rf"{mark}```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


SPECS = [
    pytest.param(text, id=f"{page.stem}-{index}")
    for page in PAGES
    for index, text in enumerate(blocks(page, "yaml"))
    # Those with weights are read as specs by tests/test_docs.py: the files are somebody else's.
    if "checkpoint:" not in text
]


def rows_of_coverage() -> list[str]:
    rows = [line for line in COVERAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    return [row for row in rows if not row.startswith("| theirs")]


def functions_of(path: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_row_of_coverage_names_the_tests_that_hold_it():
    rows = rows_of_coverage()
    assert len(rows) >= 35
    for row in rows:
        held = row.rstrip(" |").rpartition(" | ")[2].split(", ")
        assert [name for name in held if not re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", name)] == [], row


def test_every_test_that_coverage_names_is_there():
    named = sorted(set(re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", COVERAGE.read_text())))
    assert len(named) >= 30
    assert [path for path, _ in named if not (ROOT / path).is_file()] == []
    assert [f"{path}::{name}" for path, name in named if name and name not in functions_of(path)] == []


def test_coverage_names_every_network_of_the_zoo():
    text = COVERAGE.read_text()
    ranges = {"seresnet34", "seresnet50", "seresnet101", "seresnet152", "seresnetv2_101", "seresnetv2_152"}
    ranges |= {"seresnet32", "seresnet44", "seresnet46", "seresnet56", "seresnet110"}
    assert [name for name in zoo.names() if name not in ranges and name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_specs_networks_and_verbs_that_are_there(page):
    text = page.read_text()
    assert [path for path in re.findall(r"specs/[\w/]+\.yaml", text) if not (ROOT / path).is_file()] == []
    assert [name for name in re.findall(r"zoo:(\w+)", text) if name not in zoo.names()] == []
    assert set(re.findall(r"^\$ sesurgery ([\w-]+)", text, re.MULTILINE)) <= set(program.commands)


@pytest.mark.parametrize("text", SPECS)
def test_a_spec_for_those_who_change_over_plans_the_sites_that_it_expects(text):
    spec = pipeline.load_spec(yaml.safe_load(text))
    # A rule that expects another number of sites is an error of the plan.
    sites = len(pipeline.plan(spec).plan.sites)
    expected = [rule.expect for rule in spec.surgery if rule.expect is not None]
    assert sites > 0
    assert sites >= sum(expected)


def test_the_python_snippets_print_what_they_promise():
    code = "\n".join(text for page in PAGES for text in blocks(page, "python", "<!-- run -->\n"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "2", "True"]


def test_the_table_of_flops_on_the_page_is_what_is_printed():
    from click.testing import CliRunner

    page = ROOT / "docs" / "tables.md"
    (command,) = re.findall(r"^\$ sesurgery (plan .*)$", page.read_text(), re.MULTILINE)
    arguments = [str(ROOT / part) if part.startswith("specs/") else part for part in command.split()]
    printed = CliRunner().invoke(program, arguments).output.splitlines()
    shown = next(text for text in blocks(page, "console") if command in text).splitlines()[2:-1]
    assert len(shown) >= 6
    assert [line for line in shown if line not in printed] == []


def test_the_table_of_milliseconds_on_the_page_is_whole():
    (shown,) = [text for text in blocks(ROOT / "docs" / "tables.md", "console") if "$ sesurgery bench" in text]
    assert "..." not in shown
    assert re.search(r"^  ms +with blocks +without +as exported +difference$", shown, re.MULTILINE)
    assert [name for name in ("median", "p99", "samples/s", "SE tax") if name not in shown] == []
