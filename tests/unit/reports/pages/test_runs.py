"""Several runs side by side: tables, findings, warnings, and the page."""

from __future__ import annotations

import dataclasses
import json

import pytest
from test_page import parse

from sesurgery.reports.model import RunReport
from sesurgery.reports.pages import runs


@pytest.fixture
def two(run: RunReport) -> tuple[RunReport, RunReport]:
    assert run.training is not None
    training = dataclasses.replace(run.training, top1=0.97)
    return run, dataclasses.replace(run, title="plain <b>", training=training, latency=run.latency[:1])


def test_each_run_and_each_race_has_its_row(two: tuple[RunReport, RunReport]) -> None:
    assert [row[0] for row in runs.runs(two)] == ["se-resnet18 on digits", "plain <b>"]
    assert [row[:2] for row in runs.races(two)][-1] == ["plain <b>", "onnxruntime fp32"]
    assert len(runs.races(two)) == 3
    assert "plain <b>" in runs.to_text(two)


def test_parity_is_counted_by_its_outcome(two: tuple[RunReport, RunReport]) -> None:
    assert {row[-1] for row in runs.runs(two)} == {"1 of 3 passed, 1 FAILED"}


def test_the_best_is_named_by_each_measure(two: tuple[RunReport, RunReport]) -> None:
    found = "\n".join(runs.findings(two))
    assert "most accurate: se-resnet18 on digits, 98.55 % of the held-out samples" in found
    assert "blocks cost least: se-resnet18 on digits on onnxruntime fp16" in found


def test_what_may_not_be_compared_is_said(two: tuple[RunReport, RunReport]) -> None:
    one, other = two
    assert runs.warnings(two) == [
        "se-resnet18 on digits, onnxruntime fp16: doubtful: the machine was busy (variation 6.0 %)"
    ]
    moved = dataclasses.replace(other, provenance=dataclasses.replace(other.provenance, device="Another CPU"))
    assert any("different machines" in warning for warning in runs.warnings((one, moved)))
    assert other.training is not None
    elsewhere = dataclasses.replace(other, training=dataclasses.replace(other.training, data="cifar10"))
    assert any("different data" in warning for warning in runs.warnings((one, elsewhere)))


def test_the_page_has_all_plots_leads_to_each_run_and_loads_nothing(two: tuple[RunReport, RunReport]) -> None:
    page = runs.to_html(two, {"plain <b>": "plain/report.html"})
    found = parse(page).found
    assert page.count("<svg ") == page.count("<figcaption>") == 4
    assert [a["href"] for tag, a in found if tag == "a" and a["href"].endswith(".html")] == ["plain/report.html"]
    assert not {tag for tag, _ in found} & {"script", "link", "img", "iframe", "object", "embed"}
    assert "plain <b>" not in page


def test_runs_without_training_or_engines_still_make_a_page(run: RunReport) -> None:
    bare = dataclasses.replace(run, training=None, engines=(), latency=())
    page = runs.to_html((bare, bare))
    parse(page)
    assert "<svg" not in page


def test_markdown_and_json_hold_the_same(two: tuple[RunReport, RunReport]) -> None:
    text = runs.to_markdown(two)
    assert text.startswith(f"<!-- {runs.MARK} -->\n# 2 runs side by side\n")
    assert "| plain &lt;b&gt; | onnxruntime fp32 |" in text
    data = json.loads(json.dumps(runs.to_json(two), allow_nan=False))
    assert [each["title"] for each in data["runs"]] == ["se-resnet18 on digits", "plain <b>"]
