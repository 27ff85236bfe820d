"""A bounded part of `make fuzz`: the same cases every time, some of each target that needs no workspace."""

import pytest

from tests.fuzz.fuzz import SHARES, WORKSPACE, environment_for, run_target

SEED, SECONDS = 20170905, 5


@pytest.mark.slow
@pytest.mark.parametrize("target", [name for name in SHARES if name not in WORKSPACE])
def test_nothing_bad_comes_of_what_nobody_meant(target, tmp_path):
    environment = environment_for([target], tmp_path)
    counts, bad, _ = run_target(target, SEED, 0, 60, SECONDS, tmp_path, environment)
    assert bad == []
    assert counts["refused"] + counts["done"] >= 1
