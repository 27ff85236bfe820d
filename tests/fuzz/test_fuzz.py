"""A bounded part of `make fuzz`: the same cases every time, some of each target that needs no workspace."""

import pytest

from tests.fuzz.fuzz import GOALS, WORKSPACE, run

SEED, SECONDS, CASES = 20170905, 20, 100


@pytest.mark.slow
def test_nothing_bad_comes_of_what_nobody_meant(tmp_path):
    targets = [name for name in GOALS if name not in WORKSPACE]
    tally = run(targets, SEED, tmp_path, seconds=SECONDS, last=CASES)
    assert tally.bad == []
    assert sum(counts["refused"] + counts["done"] for counts in tally.counts.values()) >= len(targets)
