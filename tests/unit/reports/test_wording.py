from __future__ import annotations

import pytest

from sesurgery.reports import wording


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00461, "4.610"), (0.0461, "46.10"), (1.5, "1500"), (4.61e-6, "0.004610"), (0.0, "0.000")]
)
def test_milliseconds_have_four_significant_digits(seconds: float, text: str) -> None:
    assert wording.milliseconds(seconds) == text


def test_milliseconds_take_the_decimals_of_the_number_they_stand_beside() -> None:
    assert wording.milliseconds(0.0000959, beside=0.0046) == "0.096"


@pytest.mark.parametrize(
    ("share", "text"), [(0.95, "95 %"), (0.9704, "97.0 %"), (1.0, "100 %"), (0.99999, "99.999 %"), (0.0, "0 %")]
)
def test_one_wrong_answer_is_never_rounded_away(share: float, text: str) -> None:
    assert wording.percent(share) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.098, "+9.8 %"), (-0.002, "-0.2 %"), (0.0002, "+0.02 %"), (0.0, "+0.0 %")]
)
def test_a_small_change_is_not_rounded_to_nothing(share: float, text: str) -> None:
    assert wording.change(share) == text


@pytest.mark.parametrize(
    ("number", "text"), [(25_557_032, "25.56 M"), (4.1e9, "4.10 G"), (88_358, "88.4 k"), (9_999, "9,999"), (0, "0")]
)
def test_counts_carry_their_magnitude(number: float, text: str) -> None:
    assert wording.count(number) == text


def test_growth_from_nothing_has_no_share() -> None:
    assert wording.growth(0, 5) == "n/a"


def test_code_in_markdown_survives_its_own_backticks() -> None:
    assert wording.markdown_code("a `b` c") == "``a `b` c``"
    assert wording.markdown_code("`b") == "`` `b ``"
