"""The queue of trials in a storage: who may look at it, and when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures.postgresql import DATABASES
from fixtures.studies import spec_with

from sesurgery.studies.opening import opened
from sesurgery.studies.parameters import is_whole
from sesurgery.studies.storage import with_parameters
from sesurgery.studies.turns import held


def numbers_taken(folder, asked):
    with opened("tiny", asked, folder).take() as task:
        return task.trial.number


@pytest.mark.parametrize("storage", DATABASES, indirect=True)
def test_a_process_with_another_folder_waits_for_the_queue_of_one_database(tmp_path, storage):
    # SQLite has no locks of rows: without a lock of ours two that look at once take the same trial. On PostgreSQL
    # the second would see the first one's trial while its parameters are written, one after the other.
    asked = spec_with(storage=storage).study
    first = numbers_taken(tmp_path / "one", asked)
    with ThreadPoolExecutor(1) as machine:
        with held(tmp_path / "one", asked):
            second = machine.submit(numbers_taken, tmp_path / "two", asked)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        assert second.result(timeout=60) not in (None, first)


WHOLE = {
    "plain": {"network": "plain", "seed": 0},
    "blocks": {"network": "blocks", "seed": 0, "surgery[0].insert.reduction": 4},
}


@pytest.mark.parametrize("network", WHOLE)
def test_a_trial_whose_parameters_are_being_written_is_no_cell_yet(tmp_path, network):
    asked = spec_with().study
    storage = opened("tiny", asked, tmp_path)
    parameters = WHOLE[network]
    parts = [dict(list(parameters.items())[:count]) for count in range(len(parameters))]
    assert [is_whole(each, asked.axes) for each in parts] == [False] * len(parts)
    assert is_whole(parameters, asked.axes)
    # Another process is cut off, or goes on, between the first parameter of a trial and the second.
    storage.study.ask().suggest_categorical("network", ["blocks", "plain"])
    assert with_parameters(opened("tiny", asked, tmp_path)) == []


def test_a_journal_is_held_with_its_folder_alone(tmp_path):
    asked = spec_with().study
    with held(tmp_path / "one", asked):
        assert isinstance(numbers_taken(tmp_path / "two", asked), int)
