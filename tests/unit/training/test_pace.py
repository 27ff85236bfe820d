"""Rate and time left, by a clock that the test sets."""

from __future__ import annotations

import io

from rich.console import Console

from sesurgery.cli.console import Bars, bar
from sesurgery.training.pace import Pace, time_left


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_of_the_batches_since_the_first_and_the_rest_is_of_the_whole_run():
    clock = Clock()
    pace = Pace(epochs=3, images=1000, clock=clock)
    # The first batch took a minute of loading and compiling.
    clock.now = 60
    assert pace.after_batch("train", 1, 10) == ""
    clock.now = 64
    # 100 images a batch, 2 s a batch: 7 batches of this epoch and 10 of each of two more.
    assert pace.after_batch("train", 3, 10) == "50 images/s  1 min left of the run"
    clock.now = 78
    assert pace.after_batch("train", 10, 10) == "50 images/s  1 min left of the run"
    clock.now = 80
    assert pace.after_batch("evaluate", 1, 5) == ""
    clock.now = 84
    # 4 s an evaluation batch: 3 more of them, then two epochs of 20 + 20 s.
    assert pace.after_batch("evaluate", 2, 5) == "2 min left of the run"
    assert pace.after_epoch(1, 50.0) == "2 min left"
    assert pace.after_batch("train", 1, 10) == ""
    clock.now = 86
    assert pace.after_batch("train", 2, 10) == "50 images/s  1 min left of the run"
    assert pace.after_epoch(3, 50.0) == ""


def test_a_resumed_run_counts_the_epochs_that_are_left():
    clock = Clock()
    pace = Pace(epochs=3, images=1000, done=2, clock=clock)
    pace.after_batch("train", 6, 10)
    clock.now = 1
    assert pace.after_batch("train", 7, 10) == "100 images/s  3 s left of the run"


def test_times_are_in_words():
    assert [time_left(seconds) for seconds in (4, 90, 3700)] == ["4 s left", "2 min left", "1 h 2 min left"]


def test_the_progress_bar_shows_rate_and_time_left():
    shown = io.StringIO()
    with bar(Console(file=shown, force_terminal=True, width=160)) as progress:
        bars = Bars(progress)
        bars.progress("training", 3, 10, "50 images/s  54 s left of the run")
        progress.refresh()
        bars.progress("building", 1, 2)
    assert "3/10" in shown.getvalue()
    assert "50 images/s  54 s left of the run" in shown.getvalue()
