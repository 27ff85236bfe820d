"""What is said of blocks that are folded: answers and time, predicted beside measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery.pipeline.gates.fold import FoldResult
from sesurgery.reports.text.fold import to_json, to_text
from sesurgery.verification.cost import BlockPrice, Prices, Seconds
from sesurgery.verification.estimates import Tax
from sesurgery.verification.folding import BlockFold, EngineFold, Prediction, predicted_time
from sesurgery.verification.paired import Gain, McNemar
from sesurgery.verification.proportions import share


def price(key: str, value: float, reach: float) -> BlockPrice:
    return BlockPrice(key, key, 1, 8, 4, 4, Seconds(value, value - reach, value + reach), 100, 200)


PRICES = Prices(
    (price("a", 3e-3, 1e-3), price("b", 10e-3, 1e-3)), 100e-3, Seconds(13e-3, 12e-3, 14e-3), 1, 2, "demo fp32", True
)
FLIPS = Prediction(share(0, 1000), 180, 3)


def folded(measured: float, *, priced: bool = True) -> FoldResult:
    """Block `a` folded, in an engine whose time changed by this, give or take half a hundredth."""
    time = predicted_time(PRICES, ["a"], 0.95) if priced else None
    engine = EngineFold(
        blocks=("a",),
        others=0,
        predicted=FLIPS,
        measured=share(0, 180),
        top1=(0.9, 0.9),
        difference=Gain(0.0, -0.01, 0.01, 0.95, 180, 1),
        mcnemar=McNemar(0, 0, 1.0),
        latency=Tax(measured, measured - 0.005, measured + 0.005, 0.95, (), ()),
        doubt=None,
        time=time,
    )
    blocks = (
        BlockFold("a", 0.004, True, FLIPS, share(0, 180), time),
        BlockFold("b", 0.2, False, FLIPS, None, predicted_time(PRICES, ["b"], 0.95) if priced else None),
    )
    return FoldResult(
        folder=Path("runs/net"),
        bound=0.01,
        backend="onnxruntime",
        precision="fp32",
        deciding="256 samples",
        counted=1000,
        apart=True,
        blocks=blocks,
        engine=engine,
        lowering=("constant_gates",),
        batch=1,
        left=(),
        prices=PRICES if priced else None,
    )


def test_the_predicted_gain_stands_beside_the_measured_one_both_with_intervals() -> None:
    text = to_text(folded(-0.025))
    assert "time: -2.5 % (95 % interval -3.0 % to -2.0 %) at batch 1\n" in text
    assert "predicted: -3.0 % (95 % interval -4.0 % to -2.0 %), by the prices of these blocks: the two agree" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith(("block", "a ", "b "))}
    assert rows["block"].endswith("predicted time")
    assert rows["a"].endswith("-3.0 % (-4.0 % to -2.0 %)")
    # What a block that is not folded would save helps to choose another bound.
    assert rows["b"].endswith("-10.0 % (-11.0 % to -9.0 %)")


@pytest.mark.parametrize(("measured", "agrees"), [(-0.025, True), (-0.041, True), (-0.042, False), (0.0, False)])
def test_a_difference_beyond_the_error_of_the_two_is_said(measured: float, agrees: bool) -> None:
    # The prediction is good to 1 %, the race to 0.5 %: together to 1.118 %.
    found = folded(measured)
    assert found.engine is not None
    assert found.engine.time_as_predicted is agrees
    assert ("the two DIFFER" in to_text(found)) is not agrees


def test_json_has_prices_and_both_times() -> None:
    told = to_json(folded(-0.025))
    engine = told["engine"]
    assert engine["time"] == pytest.approx({"value": -0.03, "low": -0.04, "high": -0.02, "confidence": 0.95})
    assert engine["latency"]["value"] == -0.025
    assert engine["time_as_predicted"] is True
    assert [block["key"] for block in told["prices"]["blocks"]] == ["a", "b"]


def test_without_prices_the_report_says_that_nothing_was_predicted() -> None:
    text = to_text(folded(-0.025, priced=False))
    assert "the predicted gain was not asked for: --price" in text
    assert "predicted time" not in text
