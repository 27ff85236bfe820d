"""What a check found, as the JUnit XML that build servers show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass(frozen=True)
class Check:
    """One thing that was asked for, of what it was asked, and what was found instead; None if it holds."""

    name: str
    of: str
    failure: str | None = None


def to_junit(suite: str, checks: Sequence[Check]) -> str:
    """The document, with one test case a check."""
    failed = sum(check.failure is not None for check in checks)
    root = ElementTree.Element("testsuite", name=suite, tests=str(len(checks)), failures=str(failed))
    for check in checks:
        case = ElementTree.SubElement(root, "testcase", classname=check.of, name=check.name)
        if check.failure is not None:
            ElementTree.SubElement(case, "failure", message=check.failure)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
