"""A race of more engines than three: what is compared runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.spec.latency import Latency
from sesurgery.verification.field import race_field

PLAN = Latency(rounds=12, placements=12, repeats=2, warmup_seconds=0, half_width=None)
FEEDS = {"image": np.zeros((1, 3, 8, 8), np.float32)}


@dataclass
class Machine:
    """It has another pace each time that engines are loaded, the same for all of them."""

    paces: NDArray[np.float64] = field(default_factory=lambda: np.random.default_rng(0).uniform(1, 2, 99))
    loaded: int = 0


@dataclass
class Paced(Runner):
    """Takes `seconds` at the pace of the machine, which changes after every `engines` that are loaded."""

    machine: Machine
    name: str
    seconds: float
    engines: int
    pace: float = 1.0

    def load(self) -> Runner:
        pace = float(self.machine.paces[self.machine.loaded // self.engines])
        self.machine.loaded += 1
        return Paced(self.machine, self.name, self.seconds, self.engines, pace)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        return np.full(repeats, self.seconds * self.pace)

    def close(self) -> None:
        return


def test_what_one_engine_takes_against_another_is_paired_and_their_times_are_not():
    machine = Machine()
    engines = [Paced(machine, f"cell {number}", 0.001 * (1 + number / 10), 5) for number in range(5)]
    found = race_field(engines, [(1, 0), (4, 0)], FEEDS, PLAN)
    assert [found.taxes[pair].value for pair in ((1, 0), (4, 0))] == pytest.approx([0.1, 0.4])
    # The pace that all have in common does not blur what they are compared by.
    assert all(tax.high - tax.low < 1e-6 for tax in found.taxes.values())
    middle = np.exp(np.log(machine.paces[:12]).mean())
    assert [each.value for each in found.times] == pytest.approx([0.001 * (1 + n / 10) * middle for n in range(5)])
    assert all(each.low < 0.9 * each.value < 1.1 * each.value < each.high for each in found.times)


def test_an_interval_that_is_wide_is_made_narrower_by_more_placements():
    machine = Machine()
    engines = [Paced(machine, name, 0.001, 2) for name in ("ours", "plain")]
    race_field(engines, [(0, 1)], FEEDS, PLAN.model_copy(update={"half_width": 0.01}))
    assert machine.loaded == 2 * PLAN.placements
