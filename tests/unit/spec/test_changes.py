"""`Spec.with_`: a changed spec is a spec of its own, and a path that leads nowhere says so."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesurgery.diagnostics import SpecError
from sesurgery.pipeline import load_spec
from sesurgery.spec.changes import steps
from sesurgery.spec.source import SpecText, write
from sesurgery.spec.spec import Spec

TEXT = """\
# a comment
version: 1
model: {source: timm, name: resnet18, kwargs: {num_classes: 10}}
input: {shape: [3, 64, 64]}
surgery:
  - insert: {block: se, reduction: 16}
    at: residual
    within: "layer*"
  - {insert: eca, at: {placement: post}, within: [stem, head], name: second}
train: {epochs: 3}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    (tmp_path / "mine.yaml").write_text(TEXT)
    return load_spec(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("surgery[0].insert.reduction", 8, lambda spec: spec.surgery[0].insert.options.reduction),
        ("surgery[1].insert.kernel_size", 5, lambda spec: spec.surgery[1].insert.options.kernel_size),
        ("surgery[1].insert", "scse", lambda spec: spec.surgery[1].insert.name),
        ("surgery[0].at", "pre", lambda spec: spec.surgery[0].at.name),
        ("surgery[0].within[0]", "stem*", lambda spec: spec.surgery[0].within[0]),
        ("surgery[1].within[1]", "neck", lambda spec: spec.surgery[1].within[1]),
        ("surgery[0].except", ["a"], lambda spec: list(spec.surgery[0].except_ or ()) or None),
        ("model.kwargs.num_classes", 7, lambda spec: spec.model.kwargs["num_classes"]),
        ("model.kwargs.drop_rate", 0.5, lambda spec: spec.model.kwargs.get("drop_rate")),
        ("input.shape[2]", 32, lambda spec: spec.input.shape[2]),
        ("train.epochs", 5, lambda spec: spec.train.epochs),
        ("train.optimizer.lr", 1e-5, lambda spec: spec.train.optimizer.lr),
        ("train.data.held_out", 0.3, lambda spec: spec.train.data.options.held_out),
        ("engines[0].precision", "int8", lambda spec: spec.engines[0].precision),
        ("engines[0].batch.max", 8, lambda spec: spec.engines[0].batch.max),
        ("engines[0].backend.provider", "cuda", lambda spec: spec.engines[0].backend.options.provider),
        ("parity.batches[1]", 4, lambda spec: spec.parity.batches[1]),
        ("parity.fp16.max_abs", 0.5, lambda spec: spec.parity.fp16.max_abs),
        ("name", "other", lambda spec: spec.name),
    ],
)
def test_one_value_is_another_and_the_rest_is_as_it_was(path, value, found, spec: Spec, tmp_path: Path) -> None:
    before = spec.text(), spec.digest
    made = spec.with_({path: value})
    assert found(made) == value
    assert found(spec) != value
    assert (spec.text(), spec.digest) == before
    # It is what a file with its text is.
    (tmp_path / f"{made.name}.yaml").write_text(made.text())
    again = load_spec(tmp_path / f"{made.name}.yaml")
    assert again.digest == made.digest != spec.digest
    if found(spec) is not None:
        assert made.with_({path: found(spec)}).digest == spec.digest


TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
NUMBERS = st.floats(5e-324, 1e30, exclude_min=True)
VALUES = {
    "surgery[0].insert.reduction": st.integers(1, 65536),
    "surgery[0].within": st.lists(TEXTS.filter(bool), min_size=1, max_size=3),
    "surgery[1].name": st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True),
    "model.kwargs.note": TEXTS | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(-1e300, 1e300),
    "train.epochs": st.integers(1, 1_000_000),
    "parity.fp32.max_abs": NUMBERS,
    "parity.fp16.mean_abs": NUMBERS,
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", fullmatch=True),
}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_changed_spec_is_what_a_file_with_its_text_is(changes) -> None:
    """Whatever the values are: numbers of every size, texts that look like numbers or are no plain YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.yaml"
        path.write_text(TEXT)
        made = load_spec(path).with_(changes)
        # The second has no text of its own, and is written as a run of it keeps it.
        for spec in (made, made.model_copy(update={"name": made.name})):
            path.write_text(spec.text())
            again = load_spec(path)
            assert again.digest == made.digest
            assert again.model_dump(exclude={"name"}) == made.model_dump(exclude={"name"})


def test_several_changes_are_made_at_once_and_validated_together(spec: Spec) -> None:
    made = spec.with_({"engines[0].batch.min": 128, "engines[0].batch.opt": 128, "engines[0].batch.max": 256})
    assert made.engines[0].batch.opt == 128
    with pytest.raises(SpecError, match=r"SE107.*min <= opt <= max does not hold for 128, 1, 64"):
        spec.with_({"engines[0].batch.min": 128})


def test_a_change_of_a_change(spec: Spec) -> None:
    made = spec.with_({"train.epochs": 5}).with_({"train.seed": 7})
    assert (made.train.epochs, made.train.seed) == (5, 7)
    assert made.digest == spec.with_({"train.seed": 7, "train.epochs": 5}).digest


def test_its_marks_are_its_own_and_its_folder_is_the_files(spec: Spec, tmp_path: Path) -> None:
    made = spec.with_({"surgery[0].insert.reduction": 8})
    mark = made.span("surgery", 0, "insert", "reduction")
    assert (mark.file, mark.text.strip()) == (f"{tmp_path / 'mine.yaml'} (changed)", "reduction: 8")
    assert made.text().splitlines()[mark.line - 1] == mark.text
    assert made.folder == spec.folder == tmp_path
    assert (made.name, spec.name) == ("mine", "mine")


def test_the_comment_is_not_in_text_that_was_written_anew(spec: Spec) -> None:
    assert "# a comment" in spec.text()
    assert "# a comment" not in spec.with_({"train.epochs": 5}).text()


def test_a_spec_that_came_from_no_file_is_changed_too() -> None:
    given = {
        "version": 1,
        "model": {"source": "timm", "name": "resnet18"},
        "input": {"shape": [3, 64, 64]},
        "surgery": [{"insert": "se", "at": "residual"}],
    }
    made = load_spec(given).with_({"surgery[0].insert.reduction": 4})
    assert made.surgery[0].insert.options.reduction == 4
    assert given["surgery"] == [{"insert": "se", "at": "residual"}]


def test_a_copy_keeps_no_text_that_says_something_else(spec: Spec) -> None:
    copied = spec.model_copy(update={"name": "other"})
    assert "# a comment" not in copied.text()
    assert '"name": "other"' in copied.text()
    assert spec.model_copy().text() == spec.text() == TEXT
    assert copied.with_({"train.epochs": 5}).name == "other"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("surgery[0].insert.reducton", r"SE101.*unknown key 'reducton'(.|\n)*did you mean 'reduction'"),
        ("trian.epochs", r"SE101.*unknown key 'trian'(.|\n)*did you mean 'train'"),
        ("train.optimizer.learning_rate", r"SE101.*unknown key 'learning_rate'"),
        ("surgery[2].insert", r"SE101.*'surgery\[2\].insert' leads nowhere: 'surgery' has 2 entries"),
        ("input.shape[3]", r"SE101.*leads nowhere: 'input.shape' has 3 entries"),
        ("train.epochs.more", r"SE101.*leads nowhere: 'train.epochs' is 3, and has no keys"),
        ("train[0]", r"SE101.*leads nowhere: 'train' is not a list"),
        ("surgery.insert", r"SE101.*leads nowhere: 'surgery' is a list, and has no keys"),
        ("surgery[-1].insert", r"SE101.*leads nowhere: it is not a path"),
        ("", r"SE101.*'' leads nowhere: it is not a path"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_that_says_where_it_ends(path: str, why: str, spec: Spec) -> None:
    with pytest.raises(SpecError, match=why):
        spec.with_({path: 1})


def test_every_path_that_leads_nowhere_is_told_at_once(spec: Spec) -> None:
    with pytest.raises(SpecError) as caught:
        spec.with_({"surgery[7].at": "pre", "train.epochs": 2, "engines[3].precision": "fp16"})
    assert len(caught.value.diagnostics) == 2


def test_a_value_of_another_type_is_shown_in_the_text_that_was_written(spec: Spec) -> None:
    with pytest.raises(
        SpecError, match=r"mine.yaml \(changed\):\d+:\d+: error\[SE103\].*integer, found 'many'"
    ) as caught:
        spec.with_({"train.epochs": "many"})
    assert "epochs: many" in str(caught.value)


def test_a_digit_that_is_a_key_is_a_key() -> None:
    assert steps("model.kwargs.3[0]") == ("model", "kwargs", "3", 0)


NUMBERS = ["1", "1e-3", "0x1f", "0o17", "1_000", ".inf", "2026-01-01", "12:30:45", "="]
WORDS = ["no", "yes", "null", "~", "true", "True", "'", '"', "ü", "<<", "*a", "&a", "!t", "%x", "@", "`", "?", "|", ">"]
TEXTS = [*NUMBERS, *WORDS, "", "a: b", "# c", "- d", "two\nlines\n", " space "]
OTHERS = [True, None, 1, -3, 1e-5, 1.0, 123456789.5, 1e22, [], {}, [[1], {"a": None}], {"no": "no", "1": "1"}]


@pytest.mark.parametrize("value", [*TEXTS, *OTHERS], ids=repr)
def test_what_is_written_is_read_as_the_same(value: object) -> None:
    data = {"key": value, "list": [value], "again": [value]}
    assert SpecText("x", write(data)).data == data
