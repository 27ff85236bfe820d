"""Prices from pairs of engines: the design, what it finds of costs that are known, and its interval."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.spec.latency import Latency
from sesurgery.verification.weighing import balanced, one_by_one, singles, weigh, weights

FEEDS = {"image": np.zeros((1, 1, 2, 2), np.float32)}
COSTS = np.array([0.3, 0.05, 0.0, 0.12, 0.2])
PLAN = Latency(rounds=12, repeats=3, placements=4, half_width=None, warmup_seconds=0)


class Network:
    """Takes 10 and what its blocks cost, and 0.2 more for the neighbours 0 and 1 together; a clock runs with it.

    `once` more for having any block.
    """

    now = once = 0.0

    def __init__(self, blocks: frozenset[int], random: np.random.Generator, noise: float, disturbed: float) -> None:
        self.blocks, self.random, self.noise, self.disturbed = blocks, random, noise, disturbed
        self.name = str(sorted(blocks))

    def load(self) -> Runner:
        together = 0.2 if {0, 1} <= self.blocks else 0.0
        seconds = 10 + COSTS[sorted(self.blocks)].sum() + together + (self.once if self.blocks else 0.0)
        if self.random.random() < self.disturbed:
            seconds *= 1.2
        return Placed(seconds * self.random.normal(1, self.noise))


class Placed(Runner):
    """A network where it lies: a placement's noise stays for as long as it is loaded."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        Network.now += self.seconds * repeats
        return np.full(repeats, self.seconds)

    def close(self) -> None:
        pass


def weighed(pairs, noise=0.0, seed=0, plan=PLAN, disturbed=0.0):
    random = np.random.default_rng(seed)
    engines = [tuple(Network(side, random, noise, disturbed) for side in pair) for pair in pairs]
    shares = weights(pairs, len(COSTS))[:-1]
    clock = lambda: Network.now  # noqa: E731
    found, placements = weigh(engines, FEEDS, plan, shares, generator=random, clock=clock)
    return found, placements, shares


@pytest.mark.parametrize("count", range(1, 33))
def test_every_block_is_on_either_side_and_any_two_blocks_are_told_apart(count):
    pairs = balanced(count)
    assert len(pairs) <= count + 4 if count < 21 else len(pairs) <= 32
    assert all(one | other == frozenset(range(count)) and not one & other for one, other in pairs)
    signs = np.array([[1 if number in one else -1 for number in range(count)] for one, other in pairs])
    assert (signs.T @ signs == len(pairs) * np.eye(count)).all()


@pytest.mark.parametrize("count", [4, 5, 12, 16, 28])
def test_no_pair_has_all_blocks_against_none(count):
    assert all(other for _, other in balanced(count))


def test_prices_are_found_and_hold_half_of_what_two_blocks_cost_together():
    found, _, shares = weighed(balanced(len(COSTS)))
    prices = [found.combined(row).value for row in shares]
    assert prices == pytest.approx(COSTS + np.array([0.1, 0.1, 0, 0, 0]), abs=1e-4)


def test_what_any_block_costs_is_told_from_one_against_none(monkeypatch):
    monkeypatch.setattr(Network, "once", 0.5)
    pairs = balanced(len(COSTS)) + singles(len(COSTS))
    found, _, shares = weighed(pairs)
    (*_, shared) = weights(pairs, len(COSTS))
    # One alone has nothing together with a neighbour: half of what 0 and 1 do is in the prices of these two alone.
    assert found.combined(shared).value == pytest.approx(0.5, abs=0.01)
    assert [found.combined(row).value for row in shares] == pytest.approx(
        COSTS + np.array([0.1, 0.1, 0, 0, 0]), abs=0.01
    )


@pytest.mark.parametrize("count", range(1, 33))
def test_a_few_blocks_stand_alone_against_none(count):
    alone = singles(count)
    assert len(set(alone)) == len(alone) == (0 if count == 1 else min(4, max(1, count // 4)))
    assert all(len(one) == 1 and not other for one, other in alone)


def test_without_such_a_pair_what_any_block_costs_is_in_no_price():
    assert not weights(balanced(5), 5)[-1].any()
    assert not weights(one_by_one(5), 5)[-1].any()


def test_left_out_alone_a_block_saves_all_that_it_costs_beside_the_others():
    found, _, shares = weighed(one_by_one(len(COSTS)))
    prices = [found.combined(row).value for row in shares]
    assert prices == pytest.approx(COSTS + np.array([0.2, 0.2, 0, 0, 0]), rel=0.05)


def test_pairs_of_halves_tell_prices_with_less_error_than_blocks_left_out_alone():
    (halves, _, row), (alone, _, other) = (weighed(pairs(5), 0.01) for pairs in (balanced, one_by_one))
    assert halves.reach(row[0]) < 0.6 * alone.reach(other[0])


@pytest.mark.parametrize("disturbed", [0.0, 0.03])
def test_the_interval_covers_what_is_true(disturbed):
    covered = total = 0
    for seed in range(40):
        found, _, shares = weighed(balanced(len(COSTS)), noise=0.01, seed=seed, disturbed=disturbed)
        for row, true in zip(shares, COSTS + np.array([0.1, 0.1, 0, 0, 0]), strict=True):
            price = found.combined(row)
            covered += price.low <= true <= price.high
            total += 1
    # 95 % of 200, less four standard deviations.
    assert covered / total > 0.88


def test_a_machine_that_is_slower_for_a_while_widens_the_interval_by_half_at_most():
    plan = PLAN.model_copy(update={"placements": 10})
    calm, busy = (weighed(balanced(5), 0.01, plan=plan, disturbed=share)[0] for share in (0.0, 0.05))
    assert busy.error < 1.5 * calm.error
    # The mean of the same placements has over twice the error.
    ones = [weighed(balanced(5), 0.01, seed, plan, disturbed=0.05)[0].error for seed in range(10)]
    assert max(ones) < 2 * calm.error


def test_a_run_that_is_interrupted_changes_no_price():
    class Interrupted(Placed):
        def time(self, feeds, repeats):
            found = super().time(feeds, repeats)
            found[1:2] *= 5
            return found

    class Busy(Network):
        def load(self):
            return Interrupted(super().load().seconds)

    random = np.random.default_rng(0)
    engines = [(Busy(one, random, 0.0, 0.0), Network(other, random, 0.0, 0.0)) for one, other in balanced(len(COSTS))]
    shares = weights(balanced(len(COSTS)), len(COSTS))[:-1]
    found, _ = weigh(engines, FEEDS, PLAN, shares, generator=random, clock=lambda: Network.now)
    prices = [found.combined(row).value for row in shares]
    assert prices == pytest.approx(COSTS + np.array([0.1, 0.1, 0, 0, 0]), abs=1e-2)


def test_placements_are_added_until_prices_are_narrow_or_the_time_is_over():
    wide = PLAN.model_copy(update={"half_width": 0.004, "more_seconds": 1e9})
    found, placements, shares = weighed(balanced(len(COSTS)), noise=0.01, plan=wide)
    assert found.reach(shares[0]) / found.mean <= 0.004
    assert len(placements[0]) > 4
    assert len(placements[0]) % 2 == 0
    short = wide.model_copy(update={"half_width": 1e-9, "more_seconds": 0.0})
    assert len(weighed(balanced(len(COSTS)), noise=0.01, plan=short)[1][0]) == 4
