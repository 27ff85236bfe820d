from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.latency import Latency
from sesurgery.verification.latency import LatencyReport, race
from sesurgery.verification.placements import load_orders

FEEDS = {"image": np.zeros((1, 3, 8, 8), np.float32)}


class Bench:
    """A clock that only runs when an engine does, and the log of who ran how often and of who was loaded."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []
        self.loaded: list[str] = []
        self.closed: list[str] = []

    def clock(self) -> float:
        return self.now

    def turns(self) -> list[str]:
        """Who ran, in order, without the warm-up's single runs, a placement an entry."""
        found = "".join(name if runs > 1 else " " for name, runs in self.log)
        return [part for part in found.split(" ") if part]


@dataclass
class Scripted:
    """Takes `seconds(n)` for its n-th run, and `cold` more for the first run of each call.

    What `placed(first)` gives, asked each time that it is loaded, is how much slower it is where it lies then; `first`
    is whether no other engine lies there yet.
    """

    bench: Bench
    name: str
    seconds: Callable[[int], float]
    cold: float = 0.0
    placed: Callable[[bool], float] = lambda first: 1.0
    runs: int = 0

    def load(self) -> Runner:
        first = len(self.bench.loaded) == len(self.bench.closed)
        self.bench.loaded.append(self.name)
        return Loaded(self, self.placed(first))


class Loaded(Runner):
    """A `Scripted` engine where it lies."""

    def __init__(self, engine: Scripted, pace: float) -> None:
        self.engine, self.pace = engine, pace
        self.fed: list[int] = []

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        engine, bench = self.engine, self.engine.bench
        bench.log.append((engine.name, repeats))
        taken = [engine.seconds(engine.runs + n) * self.pace + (engine.cold if n == 0 else 0.0) for n in range(repeats)]
        engine.runs += repeats
        bench.now += sum(taken)
        return np.array(taken)

    def close(self) -> None:
        self.engine.bench.closed.append(self.engine.name)


def run(*engines: Callable[[int], float], **options: Any) -> tuple[LatencyReport, Bench]:
    """A race of A (the engine), B (the baseline) and C (as exported), as many as there are functions."""
    bench = Bench()
    cold, placed = options.pop("cold", 0.0), options.pop("placed", lambda first: 1.0)
    seed = options.pop("seed", 0)
    plan = Latency(
        **{"rounds": 12, "repeats": 4, "placements": 4, "half_width": None, "warmup_seconds": 0.0, **options}
    )
    contenders = [Scripted(bench, name, each, cold, placed) for name, each in zip("ABC", engines, strict=False)]
    return race(contenders, FEEDS, plan, generator=np.random.default_rng(seed), clock=bench.clock), bench


def noisy(seconds: float, spread: float, seed: int) -> Callable[[int], float]:
    values = seconds * np.random.default_rng(seed).normal(1, spread, 9000)
    return lambda n: float(values[n])


def test_engines_are_loaded_afresh_for_every_placement_and_each_order_has_its_reverse() -> None:
    _, bench = run(lambda n: 2.0, lambda n: 1.0, placements=8)
    pairs = ["".join(bench.loaded[at : at + 2]) for at in range(0, 16, 2)]
    assert all({one, other} == {"AB", "BA"} for one, other in zip(pairs[::2], pairs[1::2], strict=True))
    assert len(bench.closed) == 16


def test_of_any_two_of_three_engines_each_is_loaded_first_equally_often() -> None:
    for seed in range(5):
        orders = load_orders(3, 6, np.random.default_rng(seed))
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert sum(order.index(one) < order.index(other) for order in orders) == 3


def test_within_a_placement_turns_alternate() -> None:
    _, bench = run(lambda n: 2.0, lambda n: 1.0)
    assert len(bench.turns()) == 4
    assert set(bench.turns()) <= {"ABBAAB", "BAABBA"}


def test_rounds_are_shared_out_among_the_placements() -> None:
    report, _ = run(lambda n: 1.0, rounds=14, placements=4)
    assert (report.rounds, report.placements) == (16, 4)


def test_a_race_goes_on_until_its_interval_is_narrow() -> None:
    def uneven(first: bool) -> float:
        return float(chance.normal(1, 0.01))

    for seed in range(5):
        chance = np.random.default_rng(seed)
        report, bench = run(lambda n: 1.05, lambda n: 1.0, placed=uneven, half_width=0.015, more_seconds=86_400)
        assert report.tax is not None
        assert report.placements == len(bench.loaded) // 2
        assert report.placements % 2 == 0
        assert report.tax.high - report.tax.low <= 0.03 or report.placements == 16
        assert report.rounds == 3 * report.placements
        sides = [{"".join(bench.loaded[at : at + 2]) for at in (4 * pair, 4 * pair + 2)} for pair in range(2)]
        assert sides == [{"AB", "BA"}] * 2


def test_no_placement_is_added_where_it_is_narrow_or_time_is_up_or_four_times_as_many_were_taken() -> None:
    def wild(first: bool) -> float:
        return float(chance.normal(1, 0.2))

    chance = np.random.default_rng(0)
    assert run(lambda n: 1.05, lambda n: 1.0, half_width=0.015)[0].placements == 4
    assert run(lambda n: 1.05, lambda n: 1.0, placed=wild, half_width=0.015, more_seconds=0)[0].placements == 4
    assert run(lambda n: 1.05, lambda n: 1.0, placed=wild, half_width=0.015, more_seconds=86_400)[0].placements == 16
    assert run(lambda n: 1.05, lambda n: 1.0, placed=wild)[0].placements == 4
    assert run(lambda n: 1.05, placed=wild, half_width=0.015)[0].placements == 4


def test_going_on_until_it_is_narrow_keeps_the_coverage() -> None:
    """Simulated placements of an engine and its copy that differ by chance, of which every second race takes more."""
    covered = more = 0
    for seed in range(400):
        chance = np.random.default_rng(seed)

        def uneven(first: bool, chance: np.random.Generator = chance) -> float:
            return float(np.exp(chance.normal(0, 0.018)))

        options = {"rounds": 12, "repeats": 1, "placements": 12, "half_width": 0.015, "more_seconds": 86_400}
        report, _ = run(lambda n: 1.0, lambda n: 1.0, placed=uneven, seed=seed, **options)
        assert report.tax is not None
        covered += report.tax.includes_zero
        more += report.placements > 12
    assert 100 < more < 390
    assert covered >= 0.925 * 400


def test_feeds_are_copied_to_another_place_for_every_engine_and_placement() -> None:
    places: list[int] = []

    class Watched(Loaded):
        def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
            (feed,) = feeds.values()
            assert np.array_equal(feed, FEEDS["image"])
            if repeats > 1:
                places.append(feed.ctypes.data)
            return super().time(feeds, repeats)

    bench = Bench()

    class Watching(Scripted):
        def load(self) -> Runner:
            super().load()
            return Watched(self, 1.0)

    contenders = [Watching(bench, name, lambda n: 1.0) for name in "AB"]
    plan = Latency(rounds=12, repeats=2, placements=12, warmup_seconds=0)
    race(contenders, FEEDS, plan, generator=np.random.default_rng(0), clock=bench.clock)
    assert FEEDS["image"].ctypes.data not in places
    assert len({place % 4096 for place in places}) > 8
    assert all(place % 64 == 0 for place in places)


def test_the_first_run_of_every_turn_is_kept_apart() -> None:
    report, bench = run(lambda n: 2.0, lambda n: 1.0, cold=50.0)
    assert {runs for name, runs in bench.log if runs > 1} == {5}
    assert report.candidate.first_run_seconds == (52.0,) * 12
    assert report.candidate.stats.max_seconds == 2.0
    assert report.candidate.stats.count == 48
    assert report.baseline is not None
    assert report.baseline.first_run_seconds == (51.0,) * 12


def test_raw_samples_stay_in_the_report_by_round_and_in_order() -> None:
    report, _ = run(lambda n: 1.0 + n)
    # Run 0 warms up, run 1 is the first of its turn; the round keeps runs 2 to 5.
    assert report.candidate.round_seconds[0] == (3.0, 4.0, 5.0, 6.0)
    assert report.candidate.round_seconds[1] == (8.0, 9.0, 10.0, 11.0)
    assert report.candidate.round_medians[0] == 4.5
    assert report.candidate.samples.shape == (48,)


def test_each_engine_warms_up_for_the_time_asked_and_later_for_a_share_of_it() -> None:
    _, bench = run(lambda n: 0.25, warmup_seconds=2.0)
    single = [index for index, (_, runs) in enumerate(bench.log) if runs == 1]
    # Eight runs before the first placement, then a quarter of them before each of the three others.
    assert single == [*range(8), 11, 12, 16, 17, 21, 22]


def test_no_warm_up_still_means_one_run() -> None:
    _, bench = run(lambda n: 1.0, lambda n: 1.0, warmup_seconds=0.0)
    assert sorted(bench.log[:2]) == [("A", 1), ("B", 1)]
    assert bench.log[2][1] > 1


def test_wall_time_counts_everything_that_ran() -> None:
    report, _ = run(lambda n: 2.0, lambda n: 1.0)
    assert report.wall_seconds == 4 * 16 * (2.0 + 1.0)


def test_an_engine_alone_has_no_tax() -> None:
    report, bench = run(lambda n: 1.0)
    assert report.tax is None
    assert report.baseline is None
    assert report.engines == (report.candidate,)
    assert bench.turns() == ["AAA"] * 4


def test_three_engines_give_what_se_costs_and_what_lowering_saved() -> None:
    report, _ = run(lambda n: 1.2, lambda n: 1.0, lambda n: 1.5)
    assert report.tax is not None
    assert report.as_exported_tax is not None
    assert report.lowering is not None
    assert report.tax.value == pytest.approx(0.2)
    assert report.as_exported_tax.value == pytest.approx(0.5)
    assert report.lowering.value == pytest.approx(1.2 / 1.5 - 1)
    assert [timing.name for timing in report.engines] == ["A", "B", "C"]


def test_a_steady_known_ratio_is_found_without_a_doubt() -> None:
    report, _ = run(noisy(1.2e-3, 0.01, 1), noisy(1e-3, 0.01, 2), rounds=60, repeats=10, placements=12)
    assert report.tax is not None
    assert report.tax.low < 0.2 < report.tax.high
    assert report.tax.high - report.tax.low < 0.01
    assert report.doubt is None


def test_an_engine_against_its_copy_costs_nothing_wherever_the_two_lie() -> None:
    """The first loaded is 1.3 % slower, and each loading is worth 1 % one way or the other."""
    covered = slower = 0
    for seed in range(100):
        chance = np.random.default_rng(seed)

        def placed(first: bool, chance: np.random.Generator = chance) -> float:
            return float((1.013 if first else 1.0) * np.exp(chance.normal(0, 0.01)))

        options = {"placed": placed, "seed": seed, "placements": 12, "repeats": 2}
        copy, _ = run(lambda n: 1.0, lambda n: 1.0, **options)
        slowed, _ = run(lambda n: 1.05, lambda n: 1.0, **options)
        assert copy.tax is not None
        assert slowed.tax is not None
        covered += copy.tax.includes_zero
        slower += slowed.tax.low > 0
    assert covered >= 93
    assert slower >= 95


def test_a_busy_machine_is_one_line_with_what_would_help() -> None:
    report, _ = run(noisy(1.5, 0.01, 1), noisy(1.0, 0.12, 2), rounds=60, placements=12)
    assert report.doubt is not None
    assert report.doubt.startswith("doubtful: the machine was busy (variation 1")
    knobs = "; close other programs or repeat it in 5 processes (`latency: processes:`, or --processes of bench)"
    assert report.doubt.endswith(knobs)
    assert "\n" not in report.doubt


def test_one_stalled_run_is_no_busy_machine() -> None:
    report, _ = run(lambda n: 9.0 if n == 30 else 1.0, lambda n: 1.0, rounds=60)
    assert report.candidate.stats.coefficient_of_variation > 0.3
    assert report.doubt is None


def test_drift_between_the_halves_is_called_out() -> None:
    # 4 placements of 8 rounds of 5 runs, after one warm-up run each.
    report, _ = run(lambda n: 1.0 if n < 82 else 1.1, rounds=32)
    assert report.candidate.drift == pytest.approx(0.1)
    assert "its pace changed (the second half ran 10 % slower)" in str(report.doubt)
    assert "wait until it is steady" in str(report.doubt)


def test_too_few_samples_for_p99_are_called_out() -> None:
    report, _ = run(lambda n: 1.0)
    assert report.doubt == "doubtful: p99 of 48 runs is close to the maximum; raise `latency: rounds:`"


def test_progress_hears_of_every_placement() -> None:
    bench, steps = Bench(), []
    plan = Latency(rounds=10, repeats=1, placements=4, warmup_seconds=0)
    race(
        [Scripted(bench, "A", lambda n: 1.0)],
        FEEDS,
        plan,
        lambda what, done, total: steps.append((done, total)),
        clock=bench.clock,
    )
    assert steps == [(done, 4) for done in range(5)]


def test_feeds_of_another_batch_than_planned_are_refused() -> None:
    with pytest.raises(SesurgeryError, match="a batch of 8 is to be timed"):
        run(lambda n: 1.0, batch=8)


def test_a_runner_that_reports_no_time_is_a_defect_not_a_result() -> None:
    with pytest.raises(RuntimeError, match="positive times"):
        run(lambda n: 0.0)
