"""docs/security.md and docs/faults.md: what is said to be held names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)
}


@pytest.mark.parametrize("page", ["security.md", "faults.md"])
def test_every_test_that_the_page_names_is_there(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
    assert named
    assert named - TESTS == set()


def test_every_statement_of_what_is_held_names_a_test() -> None:
    held = PAGE.partition("## What is not kept from others")[0]
    statements = re.split(r"^- ", held, flags=re.M)[1:]
    assert len(statements) > 15
    assert [text.splitlines()[0] for text in statements if "`test_" not in text] == []
