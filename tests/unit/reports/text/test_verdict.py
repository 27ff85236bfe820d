"""The verdict: what SE brought, what it costs, which engine to take, and one line of doubt."""

from __future__ import annotations

from sesurgery.diagnostics import Diagnostic
from sesurgery.reports.text.verdict import Learned, Price, to_text
from sesurgery.verification.estimates import Tax
from sesurgery.verification.paired import Gain

LEARNED = Learned("resnet20 on digits", 0.9861, 0.9833, Gain(0.0028, -0.009, 0.014, 0.95, 360, 2))


def tax(value: float, low: float, high: float) -> Tax:
    return Tax(value, low, high, 0.95, 5000, ())


FASTER = Price("openvino fp32", 0.0321, tax(0.012, 0.004, 0.02), tax(0.031, 0.02, 0.04), None)
SLOWER = Price(
    "onnxruntime fp32", 0.0338, tax(0.03, 0.02, 0.04), tax(0.17, 0.16, 0.18), "doubtful: the machine was busy"
)
WHERE = "seresnet50 at 224 x 224, batch 1, on Some CPU, 2 cores"


def test_a_verdict_says_gain_cost_and_choice() -> None:
    assert to_text(LEARNED, WHERE, [SLOWER, FASTER], []).splitlines() == [
        "accuracy, resnet20 on digits: 98.6 % with SE, 98.3 % without",
        "  +0.3 points (95 % interval -0.9 to +1.4; 360 held-out samples, 2 trainings each), "
        "which is not a difference that these samples can tell",
        "cost in time, seresnet50 at 224 x 224, batch 1, on Some CPU, 2 cores:",
        "  engine             with SE          SE costs as exported             after lowering",
        "  onnxruntime fp32  33.80 ms  +17.0 % (+16.0 % to +18.0 %)  +3.0 % (+2.0 % to +4.0 %)",
        "  openvino fp32     32.10 ms     +3.1 % (+2.0 % to +4.0 %)  +1.2 % (+0.4 % to +2.0 %)",
        "take openvino fp32: the fastest of these",
        "doubtful: the machine was busy",
    ]


def test_what_falls_short_comes_first_with_what_to_do() -> None:
    short = [Diagnostic("SE701", "net.int8 at batch 1: min_agreement: asked >= 0.97, found 0.9")]
    first, second, third, *_ = to_text(LEARNED, WHERE, [FASTER], short).splitlines()
    assert first == "first: do not ship what falls short of its parity (1 criterion missed):"
    assert second == "  net.int8 at batch 1: min_agreement: asked >= 0.97, found 0.9"
    assert third.startswith("  build it in a wider precision")


def test_a_difference_that_leaves_zero_out_is_one() -> None:
    sure = Learned("net on data", 0.9, 0.8, Gain(0.1, 0.05, 0.15, 0.95, 1000, 1))
    assert "1 training each), a difference" in to_text(sure, WHERE, [], [])


def test_doubts_of_several_races_are_one_line() -> None:
    doubted = [Price(name, 0.03, tax(0.1, 0, 0.2), None, f"doubtful: {name}") for name in ("one", "two")]
    lines = to_text(LEARNED, WHERE, doubted, []).splitlines()
    assert [line for line in lines if line.startswith("doubtful")] == ["doubtful: one"]
    assert "the same" in lines[4]


def test_a_machine_that_runs_no_engine_gets_no_advice() -> None:
    assert to_text(LEARNED, WHERE, [], []).endswith("no engine could be timed here\n")
