"""The queue of trials in a storage: who may look at it, and when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures.studies import spec_with

from sesurgery.studies.opening import opened
from sesurgery.studies.storage import held


def numbers_taken(folder, asked):
    with opened("tiny", asked, folder).take() as task:
        return task.trial.number


def test_a_process_with_another_folder_waits_for_the_queue_of_one_sqlite_file(tmp_path):
    # SQLite has no locks of rows: without a lock of ours two that look at once take the same trial.
    asked = spec_with(storage=f"sqlite:///{tmp_path}/study.db").study
    first = numbers_taken(tmp_path / "one", asked)
    with ThreadPoolExecutor(1) as machine:
        with held(tmp_path / "one", asked):
            second = machine.submit(numbers_taken, tmp_path / "two", asked)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        assert second.result(timeout=60) not in (None, first)


def test_a_journal_is_held_with_its_folder_alone(tmp_path):
    asked = spec_with().study
    with held(tmp_path / "one", asked):
        assert isinstance(numbers_taken(tmp_path / "two", asked), int)
