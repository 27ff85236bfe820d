"""The table of deployed files in docs/free_se.md is that of the committed results."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_shows_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    # The benchmark sets its number of threads where it is imported.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = importlib.util.spec_from_file_location("ocr", ROOT / "benchmarks" / "ocr.py")
    assert found
    assert found.loader
    ocr = sys.modules["ocr"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(ocr)
    table = ocr.table()
    assert table.count("\n| `ch_") == 6
    assert table in (ROOT / "docs" / "free_se.md").read_text()
