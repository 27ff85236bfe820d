"""Signs of life of the trials in a database, by which one machine knows whether another still runs its own.

Optuna's heartbeat: a time in the database for each running trial, and RetryHeartbeatStaleTrialCallback, which lets a
trial whose time is old wait once more. Optuna writes and looks within `Study.optimize`; ask and tell do neither, so
both is done here. Its journal has no heartbeat.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial

BEAT = 60
"""Seconds between two signs of life."""
GRACE = 600
"""Seconds without one after which a trial is taken for dead."""


def with_heartbeat(address: str) -> RDBStorage:
    """Optuna's storage in a database."""
    with _without_warnings():
        again = RetryHeartbeatStaleTrialCallback()
        return RDBStorage(address, heartbeat_interval=BEAT, grace_period=GRACE, heartbeat_stale_trial_callback=again)


@contextlib.contextmanager
def beating(database: RDBStorage, study: str, number: int) -> Iterator[None]:
    """Write signs of life of a trial of a study while the block runs; the first is there when it begins."""
    trial = database.get_trial_id_from_study_id_trial_number(database.get_study_id_from_name(study), number)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(database.get_heartbeat_interval()):
            # A database that is away for a while costs the trial nothing.
            with contextlib.suppress(Exception):
                database.record_heartbeat(trial)

    database.record_heartbeat(trial)
    thread = threading.Thread(target=beat, name=f"heartbeat of trial {number}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def give_up_the_dead(study: optuna.Study) -> None:
    """Fail the trials that gave no sign of life for `GRACE` seconds, and let each wait once more."""
    with _without_warnings():
        optuna.storages.fail_stale_trials(study)


def comes_again(trial: FrozenTrial) -> bool:
    """Whether a trial waits in the place of one that was given up."""
    with _without_warnings():
        return RetryHeartbeatStaleTrialCallback.retried_trial_number(trial) is not None


def asked(study: optuna.Study) -> optuna.Trial:
    """The study's next trial; Optuna warns that nobody writes its signs of life, which `beating` does."""
    with _without_warnings():
        return study.ask()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")
        yield
