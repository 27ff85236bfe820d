"""The account of a network module by module, in table and data, against published figures."""

from __future__ import annotations

import json

import onnx
import pytest

from sesurgery import pipeline
from sesurgery.accounting import Account, Row
from sesurgery.diagnostics import SesurgeryError
from sesurgery.reports.text import accounts
from sesurgery.reports.text.accounts import Accounts

RESNET50 = {
    "version": 1,
    "model": {"source": "timm", "name": "resnet50"},
    "input": {"shape": [3, 224, 224]},
    "surgery": [{"insert": "se", "at": "residual"}],
}
FIGURES = ("params", "macs", "activations")


@pytest.fixture(scope="module")
def planned():
    return pipeline.plan(pipeline.load_spec(RESNET50))


@pytest.fixture(scope="module", params=["torch", "fvcore"])
def data(planned, request):
    return accounts.to_json(pipeline.account_of_plan(planned, convention=request.param, depth=1))


def test_the_parameters_are_the_published_ones_by_stage(data):
    assert (data["total"]["before"]["params"], data["total"]["after"]["params"]) == (25_557_032, 28_088_024)
    rows = {row["path"]: row for row in data["rows"]}
    grown = [
        rows[f"layer{stage}"]["after"]["params"] - rows[f"layer{stage}"]["before"]["params"] for stage in range(1, 5)
    ]
    # Weights by stage as published, and the biases: of the width and of a sixteenth of it, in every block.
    weights, blocks = (24_576, 131_072, 786_432, 1_572_864), ((3, 256), (4, 512), (6, 1024), (3, 2048))
    assert grown == [size + count * (wide + wide // 16) for size, (count, wide) in zip(weights, blocks, strict=True)]


def test_the_macs_are_those_of_the_convention(data):
    # 4.09 G is what torchvision gives; the norms, the head's pool and the blocks' squeezes are what fvcore adds.
    norms_and_pool, squeezes = (
        2 * 11_113_984 + 2048 * 7**2,
        3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 7**2,
    )
    plain = 4_089_184_256
    before = plain if data["convention"] == "torch" else plain + norms_and_pool
    assert data["total"]["before"]["macs"] == before
    added = data["total"]["after"]["macs"] - before
    assert added == 2_514_944 + (squeezes if data["convention"] == "fvcore" else 0)


def test_rows_and_sites_add_up_to_the_totals(data):
    for figure in FIGURES:
        for side in ("before", "after"):
            assert sum((row[side] or {}).get(figure, 0) for row in data["rows"]) == data["total"][side][figure]
        grown = data["total"]["after"][figure] - data["total"]["before"][figure]
        assert sum(site[figure] for site in data["sites"]) == grown
    assert len(data["sites"]) == 16


def test_blocks_are_rows_of_their_own_where_paths_are_not_cut(planned):
    text = accounts.to_text(pipeline.account_of_plan(planned)).partition("\n\n")[0].splitlines()
    added = [line for line in text if line.startswith("+")]
    assert [line.split()[1] for line in added[:3]] == ["layer1.0.se.fc1", "layer1.0.se.fc2", "layer1.1.se.fc1"]
    assert all(".se" in line.split()[1] for line in added)
    assert not any(".se" in line for line in text if not line.startswith("+"))


def test_the_table_shows_what_is_after_and_what_was_added(planned):
    text = accounts.to_text(pipeline.account_of_plan(planned, depth=1)).splitlines()
    assert text[0].split() == ["module", "parameters", "added", "MACs", "added", "activations", "added"]
    assert text[8].split()[:5] == ["total", "28,088,024", "+2,530,992", "4,091,699,200", "+2,514,944"]
    assert len({len(line) for line in text[:1] + text[3:7]}) == 1


def test_what_was_taken_out_stands_where_it_was_with_a_minus():
    def rows(*paths: str) -> Account:
        return Account("torch", tuple(Row(path, 2, 30, 4) for path in paths))

    text = accounts.to_text(Accounts(rows("conv", "old", "fc"), rows("conv", "fc", "new")))
    assert [line.split()[0] for line in text.splitlines()] == ["module", "conv", "-", "fc", "+", "total"]
    assert text.splitlines()[2].split() == ["-", "old", "0", "-2", "0", "-30", "0", "-4"]


def test_the_account_of_a_network_without_a_plan_is_its_own():
    counted = pipeline.account_of_model("timm:resnet50", depth=1)
    assert counted.before.total == Row("", 25_557_032, 4_089_184_256, 11_114_984)
    assert accounts.to_json(counted)["total"] == {
        "params": 25_557_032,
        "macs": 4_089_184_256,
        "activations": 11_114_984,
    }
    assert accounts.to_text(counted).splitlines()[-1].split() == ["total", "25,557,032", "4,089,184,256", "11,114,984"]


def test_a_file_has_no_modules(tmp_path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,4,8,8] x) => (float[N,4,8,8] y) { y = Relu(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    with pytest.raises(SesurgeryError, match=r"SE302.*no modules to account for"):
        pipeline.account_of_model(str(tmp_path / "net.onnx"))


def test_both_verbs_give_the_account_as_data(planned):
    assert json.loads(json.dumps(accounts.to_json(pipeline.account_of_plan(planned))))["sites"][0]["key"] == (
        "se/layer1.0[0]"
    )
