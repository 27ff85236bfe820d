"""JUnit XML of checks."""

from __future__ import annotations

from xml.etree import ElementTree

from sesurgery.reports.junit import Check, to_junit


def test_every_check_is_a_case_and_a_failure_says_what_was_found():
    text = to_junit("bench", [Check("tax > 5 %", "a.onnx"), Check('p99 > "1" ms', "b<.onnx", "found 2 & more")])
    suite = ElementTree.fromstring(text)
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("bench", "2", "1")
    good, bad = suite
    assert (good.get("name"), good.get("classname"), len(good)) == ("tax > 5 %", "a.onnx", 0)
    (failure,) = bad
    assert (bad.get("classname"), failure.get("message")) == ("b<.onnx", "found 2 & more")
