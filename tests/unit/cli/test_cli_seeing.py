"""`sesurgery inspect`, `init` and `plan --svg` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

TINY = "python:sesurgery.networks.cifar_resnet:resnet20"


def test_inspect_prints_the_network_and_its_placements(sesurgery):
    ended = sesurgery("inspect", TINY, "--shape", "3,32,32", "--at", "residual", "--at", "concat")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        f"{TINY} on 3x32x32",
        "  75 nodes, 21 convolution units, 9 residual units",
        "  272.5 k parameters, 40.81 M MACs",
        "  stages: 1 = 32x32, 2 = 16x16, 3 = 8x8",
        "  channel gates: none",
        "  taken as a whole when tracing: none",
        "",
        "residual: 9 sites",
        "  stage 1  32x32  3 sites  16 channels  layer1.0, layer1.1, layer1.2",
        "  stage 2  16x16  3 sites  32 channels  layer2.0, layer2.1, layer2.2",
        "  stage 3  8x8    3 sites  64 channels  layer3.0, layer3.1, layer3.2",
        "",
        "concat: none",
        "  the network has no candidate of this kind",
    ]


def test_inspect_takes_a_shape_as_the_program_writes_it(sesurgery):
    assert "on 3x64x64\n" in sesurgery("inspect", TINY, "--shape", "3x64x64", "--at", "residual").out


@pytest.mark.parametrize("shape", ["3,32", "3,a,32", "0,32,32", "3,8,32,32,1", ""])
def test_a_shape_that_is_none_is_a_mistake_of_usage(shape, sesurgery):
    ended = sesurgery("inspect", TINY, "--shape", shape)
    assert ended.code == 2
    assert "write it as in 3,224,224" in ended.err


def test_inspect_lists_every_site_when_asked(sesurgery):
    ended = sesurgery("inspect", TINY, "--shape", "3,32,32", "--at", "residual", "-v")
    assert "  stage 3  8x8    64 channels  layer3.2 on layer3_2_bn2" in ended.out.splitlines()


def test_inspect_as_json_is_data_alone(sesurgery):
    ended = sesurgery("inspect", TINY, "--shape", "3,32,32", "--json")
    data = json.loads(ended.out)
    assert (data["shape"], data["params"], len(data["placements"][0]["sites"])) == ([3, 32, 32], 272_474, 9)


def test_inspect_of_a_name_that_is_not_known_ends_with_a_hint(sesurgery):
    ended = sesurgery("inspect", "timm:resnt18")
    assert (ended.code, ended.out) == (1, "")
    assert "did you mean 'resnet18'" in ended.err


def test_init_then_check_then_plan_work_one_after_the_other(sesurgery, empty):
    begun = sesurgery("init", TINY, "--shape", "3,32,32")
    assert begun.out == "at: residual, 9 sites -> specs/resnet20.yaml\n"
    assert begun.err == "look at it with: sesurgery plan specs/resnet20.yaml\n"
    assert sesurgery("check", "specs/resnet20.yaml").code == 0
    assert "9 sites, " in sesurgery("plan", "specs/resnet20.yaml").out


def test_init_does_not_write_over_a_spec(sesurgery, empty):
    before = Path("tiny.yaml").read_text()
    ended = sesurgery("init", TINY, "-o", "tiny.yaml")
    assert (ended.code, ended.out) == (1, "")
    assert "error[SE405]: tiny.yaml is already there" in ended.err
    assert Path("tiny.yaml").read_text() == before
    assert sesurgery("init", TINY, "-o", "tiny.yaml", "--force").code == 0
    assert Path("tiny.yaml").read_text() != before


def test_init_prints_the_spec_where_the_file_is_a_dash(sesurgery, empty):
    ended = sesurgery("init", TINY, "-o", "-")
    assert (ended.code, ended.err) == (0, "")
    assert "\nsurgery:\n  - insert: {block: se, reduction: 16" in ended.out
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


def test_init_of_a_spec_says_that_it_is_one(sesurgery, empty):
    ended = sesurgery("init", "tiny.yaml")
    assert ended.code == 1
    assert "tiny.yaml is a spec already" in ended.err


def test_plan_draws_a_picture_beside_its_table(sesurgery, empty):
    ended = sesurgery("plan", "tiny.yaml", "--svg", "tiny.svg", "--json")
    assert "picture -> tiny.svg\n" in ended.err
    assert len(json.loads(ended.out)["sites"]) == 3
    assert Path("tiny.svg").read_text().startswith("<svg xmlns=")


def test_plan_shows_what_every_part_costs_before_and_after(sesurgery, tmp_path):
    spec = tmp_path / "net.yaml"
    spec.write_text(
        f'version: 1\nmodel: {{source: python, name: "{TINY.partition(":")[2]}"}}\ninput: {{shape: [3, 32, 32]}}\n'
        "surgery: [{insert: {block: se, min_width: 8}, at: residual, stages: [3]}]\n"
    )
    ended = sesurgery("plan", str(spec), "--account", "--depth", "2")
    assert ended.code == 0
    added = [line.split()[:3] for line in ended.out.splitlines() if line.startswith("+")]
    # Two layers of 64 and 8 channels, with biases.
    assert added == [["+", f"se/layer3.{unit}[0]", f"{2 * 64 * 8 + 64 + 8:,}"] for unit in range(3)]
    data = json.loads(sesurgery("plan", str(spec), "--account", "--json", "--convention", "fvcore").out)
    assert data["account"]["convention"] == "fvcore"
    assert data["account"]["total"]["after"]["params"] == data["totals"]["params_after"]
    assert "account" not in json.loads(sesurgery("plan", str(spec), "--json").out)


def test_inspect_shows_what_every_part_costs(sesurgery):
    ended = sesurgery("inspect", TINY, "--shape", "3,32,32", "--account", "--depth", "0")
    assert ended.code == 0
    assert "layer1.0.conv1" in ended.out
    data = json.loads(sesurgery("inspect", TINY, "--shape", "3,32,32", "--account", "--json").out)
    assert sum(row["params"] for row in data["rows"]) == data["total"]["params"] == 272_474


@pytest.mark.parametrize("option", [["--depth", "2"], ["--convention", "fvcore"]])
def test_options_of_the_account_go_with_it(option, sesurgery):
    ended = sesurgery("inspect", TINY, *option)
    assert (ended.code, ended.out) == (2, "")
    assert "go with --account" in ended.err


@pytest.fixture
def net(tmp_path, monkeypatch) -> Path:
    """An ONNX file of a small network in a folder of its own, which is the current one."""
    import torch

    from sesurgery.networks.cifar_resnet import resnet20

    monkeypatch.chdir(tmp_path)
    path = Path("files/net.onnx")
    path.parent.mkdir()
    torch.onnx.export(resnet20().eval(), (torch.zeros(1, 3, 32, 32),), path, dynamo=False, opset_version=13)
    return path


def test_inspect_looks_at_an_onnx_file_at_the_shape_it_names(sesurgery, net):
    ended = sesurgery("inspect", str(net), "--at", "residual")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "files/net.onnx on 3x32x32"
    assert "residual: 9 sites" in lines


def test_a_spec_that_was_begun_for_an_onnx_file_works_as_it_is(sesurgery, net):
    assert sesurgery("init", str(net)).out.startswith("at: residual, 9 sites -> specs/net.yaml\n")
    assert 'name: "../files/net.onnx"' in Path("specs/net.yaml").read_text()
    ended = sesurgery("apply", "specs/net.yaml", "-o", "out.onnx")
    assert ended.code == 0, ended.err
    assert "9 sites" in ended.out
    assert Path("out.onnx").is_file()


def test_a_plan_of_an_onnx_file_is_explained_and_drawn(sesurgery, net):
    sesurgery("init", str(net))
    ended = sesurgery("plan", "specs/net.yaml", "--explain", "--svg", "net.svg")
    assert ended.code == 0, ended.err
    assert "turned down: 0" in ended.out
    drawn = Path("net.svg").read_text()
    assert "9 residual units" in drawn
    # Each block has a badge, and the legend one more.
    assert drawn.count(">se</text>") == 10


def test_inspect_of_an_onnx_file_that_is_not_there_says_so(sesurgery):
    ended = sesurgery("inspect", "nowhere.onnx")
    assert (ended.code, ended.out) == (1, "")
    assert "nowhere.onnx" in ended.err
