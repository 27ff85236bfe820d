"""`sesurgery report`: what it writes, what it judges, and that it measures nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sesurgery import pipeline
from sesurgery.pipeline import Workspace


@pytest.fixture
def two(here):
    shutil.copytree("runs/tiny", "runs/other")
    return here


def test_one_run_is_the_newest_and_its_report_is_written_into_its_folder(sesurgery, here):
    ended = sesurgery("report")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "taking the newest run: runs/tiny",
        "report -> runs/tiny/report.html, runs/tiny/report.md, runs/tiny/report.json",
    ]
    assert ended.out.startswith("tiny: No engine was compared with the model\n")
    assert Path("runs/tiny/report.html").read_text().startswith("<!DOCTYPE html>")


def test_several_runs_are_compared_and_the_page_leads_to_each(sesurgery, two):
    ended = sesurgery("report", "runs/tiny", "runs/other", "--json")
    assert ended.code == 0
    assert [run["title"] for run in json.loads(ended.out)["runs"]] == ["tiny", "other"]
    page = Path("runs/comparison.html").read_text()
    assert '<a href="tiny/report.html">tiny</a>' in page
    assert Path("runs/other/report.html").is_file()
    assert Path("runs/comparison.md").read_text().startswith("<!-- made by sesurgery report -->")


def test_limits_are_judged_by_what_was_measured_and_broken_where_nothing_was(sesurgery, here, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("summary.md").write_text("other step\n")
    ended = sesurgery("report", "--fail-if", "tax > 5 %", "--junit", "limits.xml")
    assert ended.code == 4
    assert "error[SE702]: tiny: --fail-if 'tax > 5 %': nothing was timed: run `sesurgery bench` first" in ended.err
    assert ElementTree.parse("limits.xml").getroot().get("failures") == "1"
    assert Path("summary.md").read_text().startswith("other step\n## tiny\n\n> [!CAUTION]\n")


def test_what_is_no_run_is_an_error(sesurgery, empty):
    ended = sesurgery("report", "runs/nothing")
    assert ended.code == 1
    assert "error[SE402]" in ended.err


def test_pages_that_are_served_show_each_run_and_all_of_them(two):
    pages = pipeline.report_pages([Path("runs/tiny"), Path("runs/other")], Workspace())
    assert list(pages) == ["/", "/1/tiny", "/2/other"]
    assert '<a href="/2/other">other</a>' in pages["/"]()
    assert "<title>other</title>" in pages["/2/other"]()


def test_serving_says_where_to_look_and_ends_by_an_interrupt(sesurgery, here, monkeypatch):
    from sesurgery.reports import server

    def interrupted(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(server.ThreadingHTTPServer, "serve_forever", interrupted)
    ended = sesurgery("report", "--serve")
    assert ended.code == 0
    assert "http://127.0.0.1:" in ended.out
