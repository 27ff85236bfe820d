from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.model import Latency
from sesurgery.verification.latency import LatencyReport, race

FEEDS = {"image": np.zeros((1, 3, 8, 8), np.float32)}


class Bench:
    """A clock that only runs when an engine does, and the log of who ran how often."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now

    def turns(self) -> str:
        """Who ran, in order, without the warm-up's single runs."""
        return "".join(name for name, runs in self.log if runs > 1)


class Scripted(Runner):
    """Takes `seconds(n)` for its n-th run, and `cold` more for the first run of each call."""

    def __init__(self, bench: Bench, name: str, seconds: Callable[[int], float], cold: float = 0.0) -> None:
        self.bench, self.name, self.seconds, self.cold, self.runs = bench, name, seconds, cold, 0

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        raise NotImplementedError

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        self.bench.log.append((self.name, repeats))
        taken = [self.seconds(self.runs + n) + (self.cold if n == 0 else 0.0) for n in range(repeats)]
        self.runs += repeats
        self.bench.now += sum(taken)
        return np.array(taken)

    def close(self) -> None:
        pass


def run(
    candidate: Callable[[int], float], baseline: Callable[[int], float] | None = None, **options: Any
) -> tuple[LatencyReport, Bench]:
    bench = Bench()
    cold = options.pop("cold", 0.0)
    plan = Latency(**{"rounds": 10, "repeats": 4, "warmup_seconds": 0.0, **options})
    plain = Scripted(bench, "B", baseline, cold) if baseline else None
    report = race(Scripted(bench, "A", candidate, cold), plain, FEEDS, plan, names=("se", "plain"), clock=bench.clock)
    return report, bench


def noisy(seconds: float, spread: float, seed: int) -> Callable[[int], float]:
    values = seconds * np.random.default_rng(seed).normal(1, spread, 5000)
    return lambda n: float(values[n])


def test_the_order_alternates_abba() -> None:
    _, bench = run(lambda n: 2.0, lambda n: 1.0)
    assert bench.turns() == "ABBAABBAABBAABBAABBA"


def test_the_first_run_of_every_turn_is_kept_apart() -> None:
    report, bench = run(lambda n: 2.0, lambda n: 1.0, cold=50.0)
    assert {runs for name, runs in bench.log if runs > 1} == {5}
    assert report.candidate.first_run_seconds == (52.0,) * 10
    assert report.candidate.stats.max_seconds == 2.0
    assert report.candidate.stats.count == 40
    assert report.baseline is not None
    assert report.baseline.first_run_seconds == (51.0,) * 10


def test_raw_samples_stay_in_the_report_by_round_and_in_order() -> None:
    report, _ = run(lambda n: 1.0 + n)
    # Run 0 warms up, run 1 is the first of its turn; the round keeps runs 2 to 5.
    assert report.candidate.round_seconds[0] == (3.0, 4.0, 5.0, 6.0)
    assert report.candidate.round_seconds[1] == (8.0, 9.0, 10.0, 11.0)
    assert report.candidate.round_medians[0] == 4.5
    assert report.candidate.samples.shape == (40,)


def test_each_engine_warms_up_for_the_time_asked() -> None:
    _, bench = run(lambda n: 0.25, lambda n: 0.5, warmup_seconds=1.0)
    assert bench.log[:6] == [("A", 1)] * 4 + [("B", 1)] * 2


def test_no_warm_up_still_means_one_run() -> None:
    _, bench = run(lambda n: 1.0, lambda n: 1.0, warmup_seconds=0.0)
    assert bench.log[:2] == [("A", 1), ("B", 1)]


def test_wall_time_counts_everything_that_ran() -> None:
    report, _ = run(lambda n: 2.0, lambda n: 1.0)
    assert report.wall_seconds == 51 * 2.0 + 51 * 1.0


def test_an_engine_alone_has_no_tax() -> None:
    report, bench = run(lambda n: 1.0)
    assert report.tax is None
    assert report.baseline is None
    assert report.engines == (report.candidate,)
    assert bench.turns() == "A" * 10


def test_a_steady_known_ratio_is_found_without_a_warning() -> None:
    report, _ = run(noisy(1.2e-3, 0.01, 1), noisy(1e-3, 0.01, 2), rounds=60, repeats=10)
    assert report.tax is not None
    assert report.tax.low < 0.2 < report.tax.high
    assert report.tax.high - report.tax.low < 0.01
    assert report.warnings == ()


def test_a_cost_that_drowns_in_noise_is_called_so() -> None:
    report, _ = run(noisy(1.001e-3, 0.02, 1), noisy(1e-3, 0.02, 2), rounds=60, repeats=10)
    assert [warning for warning in report.warnings if "cannot be told apart from no cost" in warning]


def test_a_noisy_engine_is_called_unstable_by_name() -> None:
    report, _ = run(noisy(1.5, 0.01, 1), noisy(1.0, 0.05, 2), rounds=30)
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("plain: unstable, the coefficient of variation is 4.8 % (above 2.5 %)")


def test_drift_between_the_halves_is_called_out() -> None:
    # 30 rounds of 5 runs: the second half begins with run 76, after one warm-up run.
    report, _ = run(lambda n: 1.0 if n < 76 else 1.1, rounds=30)
    assert report.candidate.drift == pytest.approx(0.1)
    assert any("se: the machine drifted, the second half was 10.0 % slower" in warning for warning in report.warnings)


def test_too_few_samples_for_p99_are_called_out() -> None:
    report, _ = run(lambda n: 1.0)
    assert report.warnings == ("se: p99 of 40 samples is close to the maximum; take more rounds",)


def test_progress_hears_of_warm_up_and_of_every_round() -> None:
    bench, heard = Bench(), []
    plan = Latency(rounds=10, repeats=1, warmup_seconds=0)
    race(
        Scripted(bench, "A", lambda n: 1.0),
        None,
        FEEDS,
        plan,
        lambda what, done, total: heard.append((what, done, total)),
    )
    assert heard[0] == ("warming up", 0, 1)
    assert heard[1:] == [("timing rounds", done, 10) for done in range(11)]


def test_feeds_of_another_batch_than_planned_are_refused() -> None:
    with pytest.raises(SesurgeryError, match="a batch of 8 is to be timed"):
        run(lambda n: 1.0, batch=8)


def test_a_runner_that_reports_no_time_is_a_defect_not_a_result() -> None:
    with pytest.raises(RuntimeError, match="positive times"):
        run(lambda n: 0.0)
