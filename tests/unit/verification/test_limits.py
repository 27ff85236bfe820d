"""Limits on what was measured: read, and held against a report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sesurgery.verification.estimates import Tax
from sesurgery.verification.limits import parse


def report(**figures: Any) -> Any:
    """A report of 2 ms at the median, 3 at p99, with the taxes that are given."""
    stats = SimpleNamespace(median_seconds=2e-3, p99_seconds=3e-3)
    missing = {"tax": None, "as_exported_tax": None, "lowering": None}
    return SimpleNamespace(candidate=SimpleNamespace(stats=stats), **{**missing, **figures})


def tax(value: float) -> Tax:
    fields = Tax.__dataclass_fields__
    given = {"value": value, "low": value - 0.02, "high": value + 0.02, "confidence": 0.95}
    return Tax(**{name: given.get(name, 12) for name in fields})


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("tax > 5 %", "found 10.00 % (95 % interval 8.00 to 12.00 %)"),
        ("tax>5", "found 10.00 % (95 % interval 8.00 to 12.00 %)"),
        ("tax > 9 %", "found 10.00 % (95 % interval 8.00 to 12.00 %), the interval contains the limit"),
        ("tax > 12 %", None),
        ("tax < 13 %", "found 10.00 % (95 % interval 8.00 to 12.00 %)"),
        ("median > 1.5 ms", "found 2.00 ms"),
        ("median > 2 ms", None),
        ("median >= 2 ms", "found 2.00 ms"),
        ("p99 < 3 ms", None),
        ("p99 <= 3 ms", "found 3.00 ms"),
        ("lowering > 0 %", "it was not measured"),
    ],
)
def test_a_limit_is_broken_by_what_lies_beyond_it(text, broken):
    assert parse(text).broken_by(report(tax=tax(0.1))) == broken


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tax", "write it as 'tax > 5 %'"),
        ("speed > 5 %", "figures are tax \\(%\\)"),
        ("tax > 5 ms", "tax is measured in %, not in ms"),
        ("tax > five", "is not a limit"),
        ("tax > 5 % or so", "is not a limit"),
    ],
)
def test_what_is_no_limit_says_how_to_write_one(text, told):
    with pytest.raises(ValueError, match=told):
        parse(text)
