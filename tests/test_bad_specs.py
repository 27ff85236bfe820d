"""Every way in which a spec can be wrong: the message a person reads, as a golden file beside the spec."""

from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import CODES, SesurgeryError

BAD = Path(__file__).parent / "specs" / "bad"
SPECS = sorted(BAD.glob("*.yaml"))


def message(path: Path) -> str:
    with pytest.raises(SesurgeryError) as caught:
        pipeline.plan(pipeline.load_spec(path))
    assert caught.value.exit_code == 1
    return caught.value.render() + "\n"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_bad_spec_says_where_what_and_what_to_do(path, monkeypatch, update_golden):
    monkeypatch.chdir(BAD)
    found = message(Path(path.name))
    golden = path.with_suffix(".err")
    if update_golden:
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_mistake_has_a_place_a_caret_and_a_hint(path, monkeypatch):
    monkeypatch.chdir(BAD)
    with pytest.raises(SesurgeryError) as caught:
        pipeline.plan(pipeline.load_spec(Path(path.name)))
    assert path.stem.partition("_")[0] in {item.code for item in caught.value.diagnostics}
    for item in caught.value.diagnostics:
        assert item.span is not None
        assert item.span.file == path.name
        assert item.hint
        # A file that is empty or cannot be read has no line to show.
        if item.span.text:
            assert "^" in item.render().splitlines()[2]


def test_every_code_that_a_spec_can_raise_has_a_file():
    raised_by_specs = {code for code in CODES if code < "SE400"}
    assert {path.stem.partition("_")[0] for path in SPECS} == raised_by_specs


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(SesurgeryError, match=r"nowhere\.yaml:1:1: error\[SE001\]: cannot be read: No such file"):
        pipeline.load_spec(tmp_path / "nowhere.yaml")
