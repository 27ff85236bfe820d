"""The notebooks run from end to end, and what is stored in them is what they print."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from fixtures.processor_time import spent
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST = 240
"""Seconds of processor time: two minutes on two cores, whatever else the machine does."""


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_ran_and_its_links_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.source for cell in cells if not cell.outputs] == []
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", prose) if not (EXAMPLES / link).is_file()] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_is_stored(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    stored = [printed(cell) for cell in code(notebook)]
    begun = spent()
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    # The kernel has ended, so it is counted, with what it started.
    seconds = spent() - begun
    print(f"{path.name}: {seconds:.0f} s of processor time")
    assert 1 < seconds < MOST
    # What no machine and no training decides is printed again to the letter.
    cells = [pair for pair in zip(code(notebook), stored, strict=True) if "same" in pair[0].metadata.get("tags", ())]
    assert cells
    assert [printed(cell) for cell, _ in cells] == [text for _, text in cells]


def test_there_are_three_notebooks_and_the_examples_page_names_them() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_steps", "pretrained", "worth_it"]
    page = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"({path.name})" not in page] == []
