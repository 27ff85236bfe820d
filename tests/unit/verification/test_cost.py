"""What blocks cost: prices from races, their sum with its error, and the total that it has to meet."""

from dataclasses import replace

import pytest

from sesurgery.reports.text import prices as rendered
from sesurgery.verification.cost import BlockPrice, Prices, Seconds, dear_first


def block(key, value, reach, alike=1):
    time = Seconds(value, value - reach, value + reach)
    return BlockPrice(key, key, 1, 8, 4, 4, time, 100, 200, 0.5 * value, 6, 4096, alike)


def listed(*blocks, total=10e-3, reach=1e-3):
    return Prices(blocks, 110e-3, Seconds(total, total - reach, total + reach), 1, 2, "demo fp32", True)


def test_errors_of_races_add_as_squares_and_blocks_of_one_race_share_theirs():
    prices = listed(block("a", 4e-3, 3e-3), block("b", 5e-3, 4e-3))
    assert prices.summed.value == pytest.approx(9e-3)
    assert prices.summed.reach == pytest.approx(5e-3)
    together = listed(*(block(key, 3e-3, 1e-3, alike=3) for key in "abc"))
    # The race of three found 9 +- 3 ms.
    assert together.summed.reach == pytest.approx(3e-3)


def test_some_of_the_blocks_have_their_share_of_a_common_error_and_nothing_of_what_all_pay():
    alike = [block(key, 3e-3, 1e-3, alike=3) for key in "abc"]
    prices = replace(listed(*alike, block("d", 5e-3, 4e-3)), shared=Seconds(1e-3, 0.5e-3, 1.5e-3))
    # Two thirds of 9 +- 3 ms, and 5 +- 4 ms.
    some = prices.of({"a", "c", "d"})
    assert (some.value, some.reach) == (pytest.approx(11e-3), pytest.approx(20**0.5 * 1e-3))
    assert prices.of({"d"}) == prices.blocks[3].time
    assert prices.of(set()) == Seconds(0, 0, 0)
    assert prices.of(set("abcd")) == prices.summed
    assert prices.summed.value == pytest.approx(sum(each.time.value for each in prices.blocks) + 1e-3)
    # Prices that are equal by chance have errors of their own.
    assert listed(block("a", 1e-3, 3e-3), block("b", 1e-3, 3e-3)).summed.reach == pytest.approx(18**0.5 * 1e-3)


def test_the_sum_agrees_with_the_total_within_the_error_of_the_two():
    assert listed(block("a", 4e-3, 1e-3), block("b", 5e-3, 1e-3)).agrees
    far = listed(block("a", 1e-3, 1e-4), block("b", 2e-3, 1e-4))
    assert not far.agrees
    assert far.gap.value == pytest.approx(7e-3)
    assert any("leaves" in line for line in rendered.findings(far))


def test_what_blocks_share_is_in_the_sum_and_is_said():
    alone = listed(block("a", 4e-3, 1e-3), block("b", 3e-3, 1e-3))
    prices = replace(alone, shared=Seconds(3e-3, 2e-3, 4e-3))
    assert not alone.agrees
    assert prices.agrees
    assert prices.summed.value == pytest.approx(10e-3)
    assert prices.summed.reach == pytest.approx(3**0.5 * 1e-3)
    assert "an engine pays once for having any block: 3.0 ms (2.0 to 4.0)" in rendered.findings(prices)
    assert rendered.to_json(prices)["shared"] == {"value": 3e-3, "low": 2e-3, "high": 4e-3}
    vague = replace(alone, shared=Seconds(0.1e-3, -1e-3, 1.2e-3))
    assert not any("pays once" in line for line in rendered.findings(vague))


def test_the_tax_is_the_total_over_the_rest():
    assert listed(block("a", 10e-3, 1e-3)).tax == pytest.approx(0.1)


def test_the_table_names_what_is_dear_and_what_cannot_be_told():
    prices = listed(block("cheap", 1e-3, 2e-3), block("dear", 8e-3, 1e-3))
    text = rendered.to_text(prices)
    assert "the dearest: dear\n" in text
    assert "1 block of 2 cannot be told from nothing" in text
    assert [each.key for each in dear_first(prices.blocks)] == ["dear", "cheap"]
    assert "| dear | 1 | 8 x 4 x 4 |" in rendered.to_markdown(prices)


def test_a_picture_gives_the_bound_of_a_price_that_cannot_be_told():
    prices = listed(block("cheap", 1e-3, 2e-3), block("dear", 8e-3, 1e-3))
    assert rendered.labels(prices) == {"cheap": (0.0, "< 3.0 ms"), "dear": (8e-3, "8.0 ms")}


def test_json_has_the_contracts_keys():
    (first, _) = rendered.to_json(listed(block("a", 4e-3, 1e-3), block("b", 5e-3, 1e-3)))["blocks"]
    assert first["time"] == {"value": 4e-3, "low": pytest.approx(3e-3), "high": pytest.approx(5e-3)}
    assert {"key", "time", "bytes", "kernels", "params", "macs"} <= first.keys()
