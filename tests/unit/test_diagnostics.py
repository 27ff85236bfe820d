import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from sesurgery.diagnostics import CODES, Diagnostic, Span, suggest


def test_a_diagnostic_shows_line_caret_and_hint():
    span = Span("specs/x.yaml", 6, 5, 8, "    reducton: 16")
    text = Diagnostic("SE101", "unknown key 'reducton'", span, "did you mean 'reduction'?").render()
    assert text.splitlines() == [
        "specs/x.yaml:6:5: error[SE101]: unknown key 'reducton'",
        "    6 |     reducton: 16",
        "      |     ^^^^^^^^",
        "  hint: did you mean 'reduction'?",
    ]


def test_a_tab_does_not_shift_the_caret():
    span = Span("x", 1, 2, 1, "\tkey: 1")
    lines = Diagnostic("SE002", "m", span).render().splitlines()
    assert lines[1].index("key") == lines[2].index("^")


def test_a_span_longer_than_the_line_stops_at_its_end():
    text = Diagnostic("SE004", "m", Span("x", 1, 3, 99, "abcd")).render()
    assert text.splitlines()[2].count("^") == 2


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=30), max_size=50))
def test_every_name_that_is_suggested_is_known(name, known):
    hint = suggest(name, known)
    if not known:
        assert hint == "there is none"
    elif hint.startswith("did you mean "):
        ways = {repr(each) for each in known}
        rest = hint.removeprefix("did you mean ").removesuffix("?")
        while rest and rest not in ways:
            (first,) = [way for way in ways if rest.startswith(f"{way} or ")][:1]
            rest = rest.removeprefix(f"{first} or ")
        assert rest in ways
    else:
        assert hint.startswith(f"known: {sorted(known)[0]}")
        assert name not in known
    if name in known:
        assert hint.startswith(f"did you mean {name!r}")


@given(st.text(st.characters()))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_whatever_a_message_quotes_it_can_be_printed(text):
    """Halves of characters as well, which no encoding has, and what a terminal obeys."""
    shown = Diagnostic("SE001", text, Span("x.yaml", 1, 1, 1, text), hint=text).render()
    shown.encode()
    assert {unicodedata.category(letter) for letter in shown if letter not in "\n\t"}.isdisjoint({"Cc", "Cf", "Cs"})


def test_names_are_suggested_or_listed():
    assert suggest("residul", ["residual", "module"]) == "did you mean 'residual'?"
    assert suggest("zzz", ["residual", "module"]) == "known: module, residual"
    assert suggest("zzz", []) == "there is none"


def test_every_code_is_explained_in_the_docs(request):
    text = (request.config.rootpath / "docs" / "errors.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in text] == []


def test_what_a_terminal_would_obey_is_written_out():
    text = Diagnostic("SE401", "\x1b[2J\rmade it again\u202e", hint="run \x07this\tnow").render()
    assert text == "error[SE401]: \\x1b[2J\\rmade it again\\u202e\n  hint: run \\x07this\tnow"
