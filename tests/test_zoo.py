"""The specs of published networks: each plans the sites and the parameters that its papers and other libraries give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from timm import create_model

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec import zoo

ROOT = Path(__file__).parent.parent
PARAMETERS = {
    # The formula of the paper: blocks with biases, but for those of CIFAR's ResNets.
    "seresnet18": 11_778_592,
    "seresnet34": 21_958_868,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnet56": 861_818,
    "senet154": 115_088_984,
}
BACKBONES = {
    # Of the plain network: tables of the papers; pytorchcv's preresnet110, preresnet164bn and shufflenet_g3_w1.
    "sepreresnet110": 1_730_522,
    "seresnet164": 1_703_258,
    "seshufflenet": 1_865_728,
    "sewrn16_8": 10_961_370,
    "seresnext29_8x64d": 34_426_698,
}
SMALL = {
    "seresnet20": 32,
    "seresnet46": 32,
    "seresnet164": 32,
    "sewrn16_8": 32,
    "sebn_inception": 64,
    "seshufflenet": 64,
    "semobilenet": 64,
}
"""Networks that are changed and run here, at a size of their input."""


def test_every_spec_of_the_zoo_is_in_the_package_and_says_what_it_is():
    assert [f"{name}.yaml" for name in zoo.names()] == sorted(path.name for path in (ROOT / "specs/zoo").iterdir())
    assert len(zoo.names()) >= 31
    for name in zoo.names():
        assert "arXiv" in zoo.title(name) or name == "seresnet46"


@pytest.mark.parametrize("name", zoo.names())
def test_a_spec_of_the_zoo_passes_check(name):
    spec = pipeline.load_spec(zoo.path_of(name))
    assert spec.name == name
    (rule,) = spec.surgery
    assert rule.expect


@pytest.mark.parametrize("name", [*PARAMETERS, *BACKBONES])
def test_a_network_of_the_zoo_has_the_parameters_of_its_paper(name):
    planned = pipeline.plan(pipeline.load_spec(zoo.path_of(name)))
    if name in PARAMETERS:
        assert planned.after.params == PARAMETERS[name]
    else:
        assert planned.before.params == BACKBONES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_a_network_of_the_zoo_takes_the_sites_that_its_spec_expects(name):
    spec = pipeline.load_spec(zoo.path_of(name))
    assert len(pipeline.plan(spec).plan.sites) == spec.surgery[0].expect


@pytest.mark.parametrize(("name", "size"), SMALL.items())
def test_a_network_of_the_zoo_runs_and_takes_a_training_step(name, size):
    spec = pipeline.load_spec(zoo.path_of(name)).with_({"input.shape": [3, size, size]})
    planned = pipeline.plan(spec)
    changed = planned.network.apply(planned.plan).module
    images = torch.rand(2, 3, size, size)
    changed.train()
    changed(images).square().mean().backward()
    gradients = [parameter.grad for parameter in changed.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_the_plain_network_of_senet154_is_timms_without_its_gates():
    spec = pipeline.load_spec(zoo.path_of("senet154"))
    with torch.device("meta"):
        plain, whole = create_model("senet154", **dict(spec.model.kwargs)), create_model("senet154")
    assert set(plain.state_dict()) == {name for name in whole.state_dict() if ".se." not in name}


def test_a_spec_of_the_zoo_is_named_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(program, ["plan", "zoo:seresnet20"])
    assert done.exit_code == 0, done.output
    assert "9 sites" in done.output


def test_a_name_that_is_not_in_the_zoo_gets_the_nearest():
    with pytest.raises(SesurgeryError, match="did you mean sebn_inception"):
        zoo.path_of("sebn_incepton")


def test_a_spec_of_the_zoo_is_begun_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = pipeline.init("zoo:seresnet20")
    assert begun.path == Path("specs/seresnet20.yaml")
    assert len(begun.plan.sites) == 9
    assert pipeline.load_spec(begun.path).surgery == pipeline.load_spec(zoo.path_of("seresnet20")).surgery
