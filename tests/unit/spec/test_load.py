import pytest

from sesurgery.diagnostics import SpecError
from sesurgery.pipeline import load_spec

GOOD = {
    "version": 1,
    "model": {"source": "timm", "name": "resnet50", "kwargs": {"num_classes": 10}},
    "input": {"shape": [3, 224, 224]},
    "surgery": [{"insert": {"block": "se", "reduction": 8}, "at": "residual", "within": "layer*"}],
}


def test_a_mapping_is_a_spec_too():
    spec = load_spec(GOOD)
    assert spec.surgery[0].insert.options.reduction == 8
    assert spec.surgery[0].within == ("layer*",)
    assert spec.train.data.name == "digits"


def test_the_name_defaults_to_the_file_stem(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(load_spec(GOOD).model_copy(update={"name": "mine"}).text())
    assert load_spec(path).name == "mine"


def test_what_a_spec_writes_out_reads_back_to_the_same_digest(tmp_path):
    spec = load_spec(GOOD)
    path = tmp_path / "again.yaml"
    path.write_text(spec.text())
    assert load_spec(path).digest == spec.digest


def test_the_digest_follows_meaning_and_not_layout(tmp_path):
    one, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text(
        "version: 1\nname: n\nmodel: {source: timm, name: resnet18}\ninput: {shape: [3, 64, 64]}\n"
        "surgery: [{insert: se, at: residual}]\n"
    )
    other.write_text(
        "# the same\ninput:\n  shape:\n  - 3\n  - 64\n  - 64\nname: n\nversion: 1\n"
        "model: {name: resnet18, source: timm}\n"
        "surgery:\n- {at: {placement: residual}, insert: {block: se}}\n"
    )
    assert load_spec(one).digest == load_spec(other).digest


def test_mistakes_in_a_mapping_name_the_key_path():
    with pytest.raises(SpecError, match=r"surgery\.0\.insert\.ratio: unknown key 'ratio'"):
        load_spec({**GOOD, "surgery": [{"insert": {"block": "se", "ratio": 8}, "at": "residual"}]})


def test_a_spec_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        load_spec(GOOD).name = "other"


def test_text_is_no_number():
    with pytest.raises(SpecError, match=r"expected an integer, found '1'"):
        load_spec({**GOOD, "surgery": [{"insert": "se", "at": "residual", "expect": "1"}]})
