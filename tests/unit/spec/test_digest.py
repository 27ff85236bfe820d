"""A spec's digest: what it says, and none of the defaults."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import Field

from sesurgery.catalog import Ref
from sesurgery.pipeline import load_spec
from sesurgery.spec.digest import digest, without_defaults
from sesurgery.spec.export import Export
from sesurgery.spec.frozen import Frozen
from sesurgery.spec.parity import Parity, Tolerance
from sesurgery.spec.spec import Spec

WRITTEN = {
    "version": 1,
    "name": "x",
    "model": {"source": "timm", "name": "resnet18"},
    "input": {"shape": [3, 64, 64]},
    "surgery": [{"insert": "se", "at": "residual", "within": "layer*"}],
}


class Note(Frozen):
    """A section that a later version adds."""

    text: str = "none"


class LaterExport(Export):
    """`export:` of a later version, with one option more."""

    dynamo: bool = True


class LaterSpec(Spec):
    """The spec of a later version."""

    export: LaterExport = Field(default_factory=LaterExport)
    note: Note = Field(default_factory=Note)
    motto: str | None = None


def later(spec: Spec, **more: object) -> LaterSpec:
    fields = {name: getattr(spec, name) for name in Spec.model_fields if name != "export"}
    return LaterSpec.model_construct(**{**fields, "export": LaterExport(), "note": Note(), "motto": None, **more})


def test_it_holds_what_differs_from_the_defaults_and_nothing_else():
    assert without_defaults(load_spec(WRITTEN)) == {
        "version": 1,
        "name": "x",
        "model": {"source": "timm", "name": "resnet18"},
        "input": {"shape": [3, 64, 64]},
        "surgery": [{"within": ["layer*"], "insert": "se", "at": "residual"}],
        "engines": [{}],
    }


def test_a_default_that_is_written_out_changes_nothing():
    surgery = [{"insert": {"block": "se", "reduction": 16}, "at": {"placement": "residual"}, "within": ["layer*"]}]
    more = {"train": {"data": "digits", "epochs": 10}, "engines": [{"backend": "onnxruntime"}], "export": {"opset": 20}}
    assert load_spec({**WRITTEN, "surgery": surgery, **more}).digest == load_spec(WRITTEN).digest


@pytest.mark.parametrize(
    "change",
    [
        {"surgery[0].insert.reduction": 8},
        {"surgery[0].insert": "eca"},
        {"surgery[0].at": "pre"},
        {"surgery[0].except": ["a"]},
        {"model.kwargs": {"num_classes": 10}},
        {"input.shape[0]": 1},
        {"train.epochs": 9},
        {"train.augment": {}},
        {"train.data.held_out": 0.3},
        {"export.lowering": "none"},
        {"export.lowering": []},
        {"engines[0].precision": "int8"},
        {"engines[0].backend.provider": "cuda"},
        {"parity.fp16": {"max_abs": 0.1}},
        {"parity.fp16": {}},
        {"latency.batch": 2},
        {"name": "y"},
    ],
    ids=str,
)
def test_whatever_else_a_spec_says_makes_another_digest(change):
    spec = load_spec(WRITTEN)
    assert spec.with_(change).digest != spec.digest


def test_a_tolerance_left_empty_is_not_the_one_of_its_precision():
    assert without_defaults(Parity(fp16=Tolerance())) == {"fp16": {}}
    assert without_defaults(Parity(fp16=Tolerance(max_abs=0.1, min_agreement=0.99, max_top1_drop=0.01))) == {}


def test_options_and_sections_of_a_later_version_change_nothing_while_they_are_left_out():
    spec = load_spec(WRITTEN)
    assert digest(later(spec)) == spec.digest
    for more in ({"export": LaterExport(dynamo=False)}, {"note": Note(text="mine")}, {"motto": "festina lente"}):
        assert digest(later(spec, **more)) != spec.digest


def test_an_option_that_a_plugin_gets_later_changes_nothing_while_it_is_left_out():
    @dataclass(frozen=True)
    class Now:
        reduction: int = 16

    @dataclass(frozen=True)
    class Later:
        reduction: int = 16
        scale: tuple[float, ...] = (1.0,)

    assert without_defaults(Ref("se", Now())) == without_defaults(Ref("se", Later())) == "se"
    assert without_defaults(Ref("se", Now(8))) == without_defaults(Ref("se", Later(8))) == {"se": {"reduction": 8}}
    assert without_defaults(Ref("se", Later(scale=(2.0,)))) == {"se": {"scale": [2.0]}}


def test_a_key_of_a_mapping_is_kept_whatever_it_holds():
    spec = load_spec(WRITTEN)
    assert spec.with_({"model.kwargs": {"a": None}}).digest != spec.with_({"model.kwargs": {"b": None}}).digest


def test_the_order_of_keys_says_nothing():
    spec = load_spec(WRITTEN)
    one, other = {"drop_rate": 0.5, "num_classes": 10}, {"num_classes": 10, "drop_rate": 0.5}
    assert spec.with_({"model.kwargs": one}).digest == spec.with_({"model.kwargs": other}).digest
