"""What is said of a network that was trained on without its needless blocks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sesurgery.reports.text.fine_tune import to_text

GAP = SimpleNamespace(value=0.09, low=0.065, high=0.115, confidence=0.95)


def tuned(**changes: object) -> SimpleNamespace:
    after = SimpleNamespace(
        top1=(0.656, 0.566), difference=GAP, mcnemar=SimpleNamespace(p=1e-12), samples=1000, verdict="better"
    )
    given = {
        "run": Path("runs/new"),
        "began_with": Path("runs/old"),
        "taken": "63 values taken",
        "removal": SimpleNamespace(top1=(0.12, 0.566)),
        "after": after,
        "epochs": 2,
        "signal": None,
        "verified": None,
        "unverified": "there is no GPU",
    }
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize(("epochs", "said"), [(1, "1 epoch more"), (2, "2 epochs more")])
def test_a_gain_is_told_with_the_further_training_that_it_took(epochs: int, said: str) -> None:
    verdict, note, parity = to_text(tuned(epochs=epochs)).splitlines()[-3:]
    assert verdict == "verdict: runs/new is better than runs/old: take it"
    assert f"{said} than runs/old" in note
    assert note.endswith("what those would have brought with the blocks is not known")
    assert parity == "parity: no engine was verified: there is no GPU"


def test_what_a_signal_stopped_has_no_verdict() -> None:
    assert to_text(tuned(after=None)).splitlines()[-1] == "top-1: 56.60% before, 12.00% without these blocks"
