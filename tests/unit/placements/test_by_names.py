"""Blocks after modules that are named: in a list, in a file, by a regular expression; and names that are not there."""

from __future__ import annotations

import re

import pytest
import torch

import sesurgery
from sesurgery import pipeline
from sesurgery.diagnostics import SpecError
from sesurgery.networks.cifar_resnet import CifarResNet

SPEC = """
version: 1
model: {{source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {{depth: 8}}}}
input: {{shape: [3, 16, 16]}}
surgery:
  - insert: {{block: se, reduction: 4}}
    at: {{placement: module, {at}}}
"""


def spec(folder, at):
    path = folder / "net.yaml"
    path.write_text(SPEC.format(at=at))
    return pipeline.load_spec(path)


def scopes(loaded):
    return [site.scope for site in sesurgery.plan(loaded).sites]


def test_a_list_a_file_and_an_expression_name_the_same_modules(tmp_path):
    wanted = ["layer1.0.bn2", "layer3.0.bn2"]
    (tmp_path / "layers.txt").write_text("# after these\nlayer1.0.bn2\n\nlayer3.0.bn2  # the last\n")
    assert scopes(spec(tmp_path, f"names: {wanted}")) == wanted
    assert scopes(spec(tmp_path, "file: layers.txt")) == wanted
    assert scopes(spec(tmp_path, r"regex: 'layer[13]\.0\.bn2'")) == wanted


def test_names_from_a_file_are_part_of_the_spec_and_of_its_runs(tmp_path):
    (tmp_path / "layers.txt").write_text("layer1.0.bn2\n")
    loaded = spec(tmp_path, "file: layers.txt")
    assert loaded.digest == spec(tmp_path, "names: [layer1.0.bn2]").digest
    new = pipeline.apply(loaded, pipeline.Workspace(tmp_path), "net.yaml")
    (tmp_path / "layers.txt").unlink()
    assert scopes(pipeline.load_spec(new.folder / "spec.yaml")) == ["layer1.0.bn2"]
    assert scopes(loaded.with_({"surgery[0].insert.reduction": 2})) == ["layer1.0.bn2"]


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (
            "names: [layer1.0.bn2, layer2.0.bn9]",
            r"no module matches 'layer2\.0\.bn9'(?s:.*)did you mean 'layer2\.0\.bn",
        ),
        (r"regex: 'layr\d\.bn2'", r"no module matches 'layr\\d\\\.bn2'"),
        ("regex: '('", r"SE104\]: '\(' is not a regular expression(?s:.*)\^(?s:.*)hint: put a backslash before"),
        ("regex: 'a{hint}['", r"SE104\]: 'a\{hint\}\[' is not a regular expression"),
        ("names: []", r"SE102\]: no module is named(?s:.*)hint: give 'names', 'regex' or 'file'"),
        ("file: nowhere.txt", r"net\.yaml:7:\d+: error\[SE001\]: the file of names .*nowhere\.txt cannot be read"),
    ],
)
def test_names_that_are_not_there_are_told(tmp_path, at, told):
    with pytest.raises(SpecError, match=told):
        scopes(spec(tmp_path, at))


def test_a_file_without_names_is_told(tmp_path):
    (tmp_path / "layers.txt").write_text("# none yet\n")
    with pytest.raises(SpecError, match="holds none"):
        spec(tmp_path, "file: layers.txt")


@pytest.mark.parametrize("at", [["layer1.0", "layer2.0"], re.compile(r"layer[12]\.0")], ids=["list", "expression"])
def test_one_call_in_python_takes_names(at):
    model, image = CifarResNet(8), torch.zeros(1, 3, 16, 16)
    changed = sesurgery.insert(model, at=at, example_input=image, reduction=4)
    added = {key.rpartition(".se.")[0] for key in changed.state_dict().keys() - model.state_dict().keys()}
    assert added == {"layer1.0", "layer2.0"}
