import pytest

from sesurgery.diagnostics import SpecError
from sesurgery.spec.source import SpecText


def data(text):
    return SpecText("x.yaml", text).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5.0e-4", 5e-4),
        (".5", 0.5),
        ("-7", -7),
        ("0x10", 16),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("'1'", "1"),
        ("~", None),
        ("2026-11-21", "2026-11-21"),
        ("-.inf", float("-inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert data(f"a: {text}") == {"a": value}


def test_aliases_and_merge_keys_work():
    assert data("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\ne: *x") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 3},
        "e": {"b": 1, "c": 2},
    }


def test_aliases_that_explode_are_refused():
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
    )
    with pytest.raises(SpecError, match="more than 20000 values"):
        data(bomb)


def test_deep_nesting_is_refused_and_does_not_crash():
    with pytest.raises(SpecError, match="SE002"):
        data("a: " + "[" * 5000 + "]" * 5000)


def test_every_value_and_key_has_its_place():
    source = SpecText("x.yaml", "a:\n  - b: one\n    c: [2, 3]\n")
    assert str(source.span(("a", 0, "b"))) == "x.yaml:2:8"
    assert str(source.span(("a", 0, "b"), key=True)) == "x.yaml:2:5"
    assert source.span(("a", 0, "c", 1)).column == 12
    assert source.span(("a", 0, "b")).length == 3


def test_a_place_that_is_not_there_is_shown_at_the_key_above():
    source = SpecText("x.yaml", "a:\n  b: one\n")
    assert str(source.span(("a", "missing"))) == "x.yaml:1:1"


def test_all_duplicate_keys_are_reported_at_once():
    with pytest.raises(SpecError) as caught:
        data("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [item.span.line for item in caught.value.diagnostics] == [2, 3]
