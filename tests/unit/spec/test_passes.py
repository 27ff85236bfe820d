"""Lowering passes with options, as a spec names them."""

from __future__ import annotations

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import in_order, load
from sesurgery.lowering.passes.constant_gates import ConstantGates
from sesurgery.spec.passes import NamedPass, pass_named

SPEC = {
    "version": 1,
    "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20"},
    "input": {"shape": [3, 32, 32]},
    "surgery": [{"insert": "se", "at": "residual"}],
}


def spec(*lowering: str):
    return pipeline.load_spec({**SPEC, "export": {"lowering": list(lowering)}})


@pytest.mark.parametrize("named", [NamedPass("squeeze_hoist"), NamedPass("constant_gates", {"bound": 0.012345678})])
def test_what_is_written_is_read_again(named):
    assert pass_named(str(named)) == named


def test_a_pass_has_the_options_of_its_name_and_keeps_its_place():
    names = in_order(["squeeze_hoist", "constant_gates(bound=0.05)"])
    assert names == ("constant_gates(bound=0.05)", "squeeze_hoist")
    step, _ = load(names)
    assert isinstance(step, ConstantGates)
    assert step.bound == 0.05
    assert load(["constant_gates"]) == (ConstantGates(),)


def test_a_spec_keeps_the_options_and_its_digest_knows_them():
    plain, other = spec("constant_gates"), spec("constant_gates(bound=0.05)")
    assert other.export.lowering == ("constant_gates(bound=0.05)",)
    assert plain.digest != other.digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("constant_gates(bound)", "SE103.*option=number"),
        ("constant_gates(bound=wide)", "SE103.*option=number"),
        ("constant_gates(bound=nan)", "SE103.*option=number"),
        ("constant_gates(bound=1", r"SE103.*NAME\(option=number\)"),
        ("constant_gate(bound=1)", "(?s)SE105.*unknown pass 'constant_gate'.*did you mean 'constant_gates'"),
        ("squeeze-hoist", "SE105.*unknown pass"),
    ],
)
def test_a_mistake_in_it_is_a_mistake_of_the_spec(text, why):
    with pytest.raises(SesurgeryError, match=why):
        spec(text)


def test_an_option_that_the_pass_lacks_is_refused_before_it_runs():
    with pytest.raises(SesurgeryError, match=r"(?s)SE105.*no option 'bond'.*did you mean 'bound'"):
        load(["constant_gates(bond=0.05)"])
    with pytest.raises(SesurgeryError, match=r"SE105.*no option 'samples'"):
        load(["constant_gates(samples=3)"])
