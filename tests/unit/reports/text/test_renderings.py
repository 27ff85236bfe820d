from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from sesurgery.reports import to_html, to_json, to_markdown, to_text
from sesurgery.reports.model import BatchParity, EngineSection, LatencySection, RunReport
from sesurgery.reports.pages.summary import summarise
from sesurgery.reports.text import latency, parity
from sesurgery.spec.parity import Tolerance
from sesurgery.verification.estimates import Tax
from sesurgery.verification.estimates import summarise as statistics
from sesurgery.verification.latency import EngineTiming, LatencyReport
from sesurgery.verification.parity import ParityReport, compare


def timing(name: str, scale: float) -> EngineTiming:
    kept = scale * np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])
    return EngineTiming(name, statistics(kept.ravel(), 4), tuple(map(tuple, kept.tolist())), (9.0, 9.0))


RACE = LatencySection(
    "demo fp32",
    "1 CPU thread",
    LatencyReport(4, 2, 3, 0.5, 1.25, timing("seresnet", 0.0015), timing("resnet", 0.001),
                  Tax(0.5, 0.48, 0.512, 0.95, (0.5, 0.5), (0.5,) * 4), "doubtful: busy", 4),
)  # fmt: skip


def test_latency_text_is_an_aligned_table_with_tax_and_doubt() -> None:
    assert latency.to_text(RACE) == (
        "demo fp32: 1 CPU thread; batch 4, loaded afresh 4 times, 2 rounds in alternating order, "
        "3 runs an engine in each, 0.5 s warm-up, 1.2 s in all\n"
        "  ms         seresnet  resnet  difference\n"
        "  median        3.750   2.500     +50.0 %\n"
        "  mean          3.750   2.500     +50.0 %\n"
        "  min           1.500   1.000     +50.0 %\n"
        "  p90           5.250   3.500     +50.0 %\n"
        "  p95           5.625   3.750     +50.0 %\n"
        "  p99           5.925   3.950     +50.0 %\n"
        "  max           6.000   4.000     +50.0 %\n"
        "  std           1.573   1.049\n"
        "  variation    31.2 %  31.2 %\n"
        "  samples/s     1,067   1,600     -33.3 %\n"
        "SE tax +50.0 % (95 % interval +48.0 % to +51.2 %, 4 placements)\n"
        "doubtful: busy\n"
    )


def test_latency_json_keeps_raw_seconds_by_round() -> None:
    data = json.loads(json.dumps(latency.to_json(RACE), allow_nan=False))
    assert data["report"]["baseline"]["round_seconds"] == [[0.001, 0.002, 0.003], [0.002, 0.003, 0.004]]
    assert data["report"]["tax"]["value"] == 0.5
    assert data["tax"] == {"value": 0.5, "low": 0.48, "high": 0.512, "confidence": 0.95, "per": "time"}


def test_latency_json_has_each_engine_in_trtexecs_words(run: RunReport) -> None:
    data = json.loads(json.dumps(latency.to_json(run.latency[0]), allow_nan=False))
    assert data["batch"] == 1
    for form in ("lowered", "as_exported", "plain"):
        words = data[form]["latency_ms"]
        assert list(words) == ["min", "max", "mean", "median", "percentile(90%)", "percentile(95%)", "percentile(99%)"]
        assert words["min"] < words["median"] < words["percentile(90%)"] < words["percentile(99%)"] < words["max"]
        assert data[form]["throughput_qps"] == pytest.approx(1e3 / words["mean"])
    assert data["lowered"]["tax"] == data["tax"]
    assert data["lowered"]["tax"]["value"] < data["as_exported"]["tax"]["value"]
    assert data["plain"]["tax"] is None
    assert data["lowering"]["high"] < 0


def test_what_lowering_saved_stands_beside_the_tax_in_every_rendering(run: RunReport) -> None:
    report = run.latency[0].report
    assert report.as_exported_tax is not None
    before, saved = report.as_exported_tax.value, report.lowering.value
    lines = latency.to_text(run.latency[0]).splitlines()
    assert any(line.startswith(f"as exported, SE tax {100 * before:+.1f} %") for line in lines)
    assert any(line.startswith(f"lowering changes the time with blocks by {100 * saved:+.1f} %") for line in lines)
    for text in (latency.to_markdown(run.latency[0]), to_html(run).replace("\u00a0", " ")):
        assert f"lowering changes the time with blocks by {100 * saved:+.1f} %" in text
    assert f"without lowering, by {100 * before:+.1f} %" in summarise(run).sentences[-2]


def test_parity_text_names_each_failure_and_each_engine_not_compared(run: RunReport) -> None:
    lines = parity.to_text(run.engines).splitlines()
    assert lines[0].split()[:3] == ["engine", "batch", "samples"]
    assert len({line.rindex(line.split()[-1]) + len(line.split()[-1]) for line in lines[:5]}) == 1
    assert any(line.startswith("onnxruntime fp16, batch 32: max_abs: asked <= 0.1, found") for line in lines)
    assert lines[-1] == "tensorrt fp16: not verified, cannot run here: no CUDA driver"


def test_every_share_of_a_comparison_has_its_interval_in_every_rendering(run: RunReport) -> None:
    rows = {row[2]: row for row in parity.shares(run.engines[:1]) if row[1] == "1"}
    assert rows["top-5 in common"][3:] == ["mean of 360 samples", "100 %", "98.9 % to 100 %"]
    assert all(row[-1] for what, row in rows.items() if "McNemar" not in what)
    assert "| top-5 in common | mean of 360 samples | 100 % | 98.9 % to 100 % |" in to_markdown(run)
    assert "<td>top-5 in common</td>" in to_html(run)
    low, high = to_json(run)["engines"][0]["batches"][0]["answers"]["top5_overlap_interval"]
    assert (round(low, 3), high) == (0.989, 1)


def test_text_of_a_run_is_the_verdict_and_one_line_a_key_figure(run: RunReport) -> None:
    lines = to_text(run).splitlines()
    assert lines[0] == "se-resnet18 on digits: 1 of 3 engines fell short of the parity asked for"
    assert lines[1].split() == ["Blocks", "inserted", "8", "se;", "stages", "1,", "2,", "3,", "4"]
    assert lines[-1].startswith("warning: onnxruntime fp16: doubtful: the machine was busy")


def test_json_of_a_run_is_strict_json_and_says_whether_engines_passed(run: RunReport) -> None:
    data = json.loads(json.dumps(to_json(run), allow_nan=False))
    assert [engine["passed"] for engine in data["engines"]] == [True, False, None]
    assert len(data["engines"][1]["parity"][1]["failures"]) == 3
    assert data["summary"]["verdict"] == "failed"
    assert data["network"]["sites"][0]["key"] == "se/layer1.0[0]"


def test_numbers_that_are_not_finite_become_null() -> None:
    logits = np.array([[1.0, 0.0]])
    report = compare(logits, logits * np.nan, np.array([0]), Tolerance(max_abs=1.0))
    data = json.loads(json.dumps(parity.to_json(engine(report)), allow_nan=False))
    assert data["parity"][0]["max_abs"] is None
    assert data["parity"][0]["passed"] is False


def test_markdown_tables_keep_their_columns_when_a_name_holds_markup(run: RunReport) -> None:
    site = dataclasses.replace(run.network.sites[0], key="a|b<i>`*")
    hostile = dataclasses.replace(run, network=dataclasses.replace(run.network, sites=(site,)), command="x `rm` | y")
    text = to_markdown(hostile)
    assert "| a\\|b&lt;i&gt;\\`\\* | 1 |" in text
    assert "`` x `rm` | y ``" not in text
    assert "``x `rm` | y``" in text


def test_markdown_holds_every_section(run: RunReport) -> None:
    heads = [line for line in to_markdown(run).splitlines() if line.startswith("#")]
    assert heads == [
        "# se-resnet18 on digits",
        "## Network",
        "## Training",
        "## Engines",
        "## Latency: onnxruntime fp32",
        "## Latency: onnxruntime fp16",
        "## Provenance",
    ]


def test_markdown_has_the_error_by_place_and_the_samples_that_flipped(whole: RunReport) -> None:
    lines = to_markdown(whole).splitlines()
    name = "### onnxruntime fp16: "
    assert [line for line in lines if line.startswith("### ")] == [
        f"{name}error by place",
        f"{name}samples whose answer changed",
    ]
    section = whole.engines[1]
    assert section.drift is not None
    first = section.drift.errors[6]
    assert section.drift.first is first
    row = f"| {first.name} | {first.scope} | {first.error:.2g} | 4 | &lt;- first over tolerance |"
    assert row.replace("[0]", "\\[0\\]") in lines
    assert any("0.03 is tolerated" in line for line in lines)
    assert "| logits |  | not finite in 3 | 9 |  |" in lines
    assert lines.count("| 0 | three | three 90 % | eight 60 % |") == 1
    assert "| 99 | one | one 80 % | NaN or infinity |" in lines
    growth = to_json(whole)["engines"][1]["growth"]
    assert [each["name"] for each in growth["errors"]] == [each.name for each in section.drift.errors]
    assert growth["errors"][-1]["error"] is None


def test_verdict_passes_only_when_every_engine_was_compared(
    run: RunReport, good_parity: ParityReport, bad_parity: ParityReport
) -> None:
    good, bad, unknown = engine(good_parity), engine(bad_parity), dataclasses.replace(engine(good_parity), parity=())
    cases: list[tuple[tuple[EngineSection, ...], str, str]] = [
        ((good,), "passed", "The engine keeps the parity asked for"),
        ((good, good), "passed", "Both engines keep the parity asked for"),
        ((good, unknown), "open", "1 of 2 engines kept the parity asked for; the others were not compared"),
        ((bad,), "failed", "The engine fell short of the parity asked for"),
        ((good, bad, unknown), "failed", "1 of 3 engines fell short of the parity asked for"),
        ((unknown,), "open", "No engine was compared with the model"),
        ((), "open", "No engine was built"),
    ]
    for engines, verdict, finding in cases:
        summary = summarise(dataclasses.replace(run, engines=engines))
        assert (summary.verdict, summary.finding) == (verdict, finding)


def test_agreement_in_the_summary_is_the_worst_one(run: RunReport) -> None:
    figure = next(figure for figure in summarise(run).figures if figure.label == "Agreement")
    assert figure.value == "96.4 %"
    assert "worst case" in figure.detail


def test_a_tax_that_includes_zero_is_said_to_in_the_summary(run: RunReport) -> None:
    tax = Tax(0.004, -0.002, 0.009, 0.95, (0.004,) * 60, (0.004,) * 12)
    race = dataclasses.replace(RACE, report=dataclasses.replace(RACE.report, tax=tax))
    sentence = summarise(dataclasses.replace(run, latency=(race,))).sentences[-1]
    assert sentence == (
        "With the blocks, time on demo fp32 changes by +0.4 % (95 % interval -0.2 % to +0.9 %, includes zero, "
        "12 placements), which is not significantly different from no cost."
    )


def engine(report: ParityReport) -> EngineSection:
    return EngineSection("demo", "fp32", "x.demo", 1.0, {"fp32": 3}, (BatchParity(1, report),))


def test_what_stayed_fp32_is_in_every_rendering_with_its_reason(run: RunReport) -> None:
    text = to_markdown(run)
    assert "Kept in fp32 in onnxruntime fp16:" in text
    assert text.index("- 2 nodes: in the gate of squeeze") < text.index("- 1 node: a sum over many values")
    assert to_json(run)["engines"][1]["kept_fp32"][0] == "pool_1: a sum over many values"
    page = to_html(run)
    assert "onnxruntime fp16: what stayed in fp32, and why (3 nodes)" in page
    assert all(f"<code>{node}</code>" in page for node in ("pool_1", "gate_1", "gate_2"))
    assert page.count("what stayed in fp32, and why") == 1
