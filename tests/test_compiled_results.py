"""The committed results of benchmarks/compiled_traffic.py: no network is worse off lowered, and the page shows them.

`tests/integration/test_free_se.py` compiles some of the networks again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = json.loads((ROOT / "benchmarks" / "results" / "compiled_traffic.json").read_text())["rows"]
PAGE = (ROOT / "docs" / "free_se.md").read_text()
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['network']} {row['precision']} {row['mode']}")


@each_row
def test_lowered_has_no_more_kernels_and_bytes_than_as_exported(row: dict) -> None:
    assert row["lowered"]["kernels"] <= row["as exported"]["kernels"]
    assert row["lowered"]["bytes"] <= row["as exported"]["bytes"]
    assert row["difference"] < 1e-5


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if "resne" in row["network"]],
    ids=lambda row: f"{row['network']} {row['precision']} {row['mode']}",
)
def test_se_before_the_sum_moves_hardly_more_than_it_must(row: dict) -> None:
    assert row["lowered"]["bytes"] <= row["floor"] + 0.02 * row["plain"]["bytes"]


@each_row
def test_the_page_shows_what_was_measured(row: dict) -> None:
    plain, given, lowered = (row[form] for form in ("plain", "as exported", "lowered"))
    cells = [row["network"], row["precision"], row["mode"]]
    cells.append(f"{plain['kernels']} / {plain['bytes'] / 1e6:.1f}")
    cells += [
        f"{form['kernels']} / {form['bytes'] / 1e6:.1f} ({(form['bytes'] / plain['bytes'] - 1) * 100:+.1f} %)"
        for form in (given, lowered)
    ]
    cells.append(f"{(row['floor'] / plain['bytes'] - 1) * 100:+.1f} %")
    assert f"| {' | '.join(cells)} |" in PAGE


def test_every_network_is_there_in_every_precision_and_mode() -> None:
    networks = {row["network"] for row in ROWS}
    assert len(networks) >= 9
    modes = {(row["precision"], row["mode"]) for row in ROWS}
    assert len(modes) == 8
    assert len({(row["network"], row["precision"], row["mode"]) for row in ROWS}) == len(ROWS) == 8 * len(networks)
