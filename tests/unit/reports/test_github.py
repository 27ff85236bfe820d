"""The summary of a job on GitHub."""

from __future__ import annotations

import dataclasses

from sesurgery.reports.github import races_to_github, to_github
from sesurgery.reports.junit import Check
from sesurgery.reports.model import RunReport


def test_a_run_has_its_verdict_figures_and_the_whole_report_folded(run: RunReport) -> None:
    text = to_github(run)
    assert text.startswith("## se-resnet18 on digits\n\n> [!CAUTION]\n> **1 of 3 engines fell short")
    assert "| Blocks inserted | 8 |" in text
    assert text.count("<details>") == text.count("</details>") == 1
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert heads[:3] == ["## se-resnet18 on digits", "### Network", "### Training"]
    assert heads[-1] == "### Provenance"


def test_a_broken_limit_makes_a_passing_run_a_failure(run: RunReport) -> None:
    good = dataclasses.replace(run, engines=run.engines[:1])
    assert "> [!NOTE]" in to_github(good)
    broken = to_github(good, [Check("tax > 5 %", "race", "found 9.80 %"), Check("p99 > 1 s", "race")])
    assert "> [!CAUTION]" in broken
    assert "| tax &gt; 5 % | race | found 9.80 % |" in broken
    assert "| p99 &gt; 1 s | race | holds |" in broken


def test_an_engine_without_a_run_has_its_races(run: RunReport) -> None:
    text = races_to_github("net.onnx", run.latency, [Check("tax > 5 %", "race", "found 9.80 %")])
    assert text.startswith("## net.onnx\n")
    assert text.count("### onnxruntime") == 2
