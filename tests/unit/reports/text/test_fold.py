"""What is said of blocks that are folded: answers and time, predicted beside measured."""

from __future__ import annotations

import dataclasses
import html

import pytest
from fixtures.folding import folded

from sesurgery.reports import to_html, to_markdown
from sesurgery.reports.model import RunReport
from sesurgery.reports.text.fold import findings, header, table, to_json, to_text
from sesurgery.reports.wording import markdown

RUN = "runs/net"


def test_the_predicted_gain_stands_beside_the_measured_one_both_with_intervals() -> None:
    text = to_text(folded(-0.025), RUN)
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
    assert ("the two DIFFER" in to_text(found, RUN)) is not agrees


def test_json_has_prices_and_both_times() -> None:
    told = to_json(folded(-0.025))
    engine = told["engine"]
    assert engine["time"] == pytest.approx({"value": -0.03, "low": -0.04, "high": -0.02, "confidence": 0.95})
    assert engine["latency"]["value"] == -0.025
    assert engine["time_as_predicted"] is True
    assert [block["key"] for block in told["prices"]["blocks"]] == ["a", "b"]


def test_without_prices_the_report_says_that_nothing_was_predicted() -> None:
    text = to_text(folded(-0.025, priced=False), RUN)
    assert "the predicted gain was not asked for: --price" in text
    assert "predicted time" not in text


@pytest.mark.parametrize("priced", [True, False])
def test_the_page_and_markdown_have_the_same_table_and_the_same_sentences(run: RunReport, priced: bool) -> None:
    found = folded(-0.025, priced=priced)
    report = dataclasses.replace(run, folding=found)
    page, text = html.unescape(to_html(report)).replace("\u00a0", " "), to_markdown(report)
    assert '<h2 id="folding">' in page
    assert "## What folding saves" in text
    for finding in findings(found):
        assert f"<p>{finding}.</p>" in page
        assert f"{markdown(finding)}.\n" in text
    for cell in (*header(found), *(cell for row in table(found) for cell in row if cell)):
        assert f">{cell}<" in page
        assert f"| {cell} |" in text
    assert ("predicted: -3.0 %" in page) is priced
    assert ("the predicted gain was not asked for" in page) is not priced
    assert 'id="folding"' not in to_html(run)
    assert "## What folding saves" not in to_markdown(run)


def test_where_no_block_may_be_folded_the_page_says_so(run: RunReport) -> None:
    nothing = dataclasses.replace(folded(0.0, priced=False), engine=None)
    assert "<p>no block may be folded.</p>" in to_html(dataclasses.replace(run, folding=nothing))
