"""A few trials of benchmarks/planted_faults.py: what is planted is caught, and its kind and block are named."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "planted_faults.py"


@pytest.fixture(scope="module")
def planted_faults():
    spec = importlib.util.spec_from_file_location("planted_faults", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look themselves up there.
    sys.modules["planted_faults"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def victim(planted_faults):
    return planted_faults.victim(0)


@pytest.mark.parametrize(
    "fault",
    [
        "one block's weights shuffled",
        "weights of another checkpoint",
        "a node that overflows fp16",
        "right at batch 1, wrong at 2",
        "two labels swapped",
        "one site left out",
        "int8 saturation",
        "NaN in one sample",
    ],
)
def test_a_planted_fault_is_caught_and_named(planted_faults, victim, fault):
    found = planted_faults.trial(fault, 0, victim)
    assert found.caught
    assert found.named, found.text
    assert found.located in (True, None), found.text


def test_weights_of_another_checkpoint_are_told_from_those_of_one_block(planted_faults, victim):
    text = planted_faults.trial("weights of another checkpoint", 0, victim).text
    assert "weights differ from the run's: they are from another checkpoint" in text
    assert "another checkpoint" not in planted_faults.trial("one block's weights shuffled", 0, victim).text


def test_an_honest_engine_is_not_accused(planted_faults, victim):
    assert not planted_faults.judge(victim, planted_faults.Planted(victim.file, ()))[0]


def test_the_summary_counts_what_was_found(planted_faults):
    trial = planted_faults.Trial("NaN in one sample", 0, True, "precision", "a", "", ("nonfinite",), "a")
    assert "| NaN in one sample | 1 | 1 | 0 | 1 of 1 |" in planted_faults.summary([trial], [])
