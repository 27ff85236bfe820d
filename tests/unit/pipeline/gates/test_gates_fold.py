"""`gates --fold`: what folding was predicted to do on training samples, and what the folded engine did."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.engines import source_of
from fixtures.planted import plant_constants

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.pipeline import EnginesRequest, FoldRequest, Workspace
from sesurgery.pipeline.bench import prices as bench_prices
from sesurgery.pipeline.gates.constants import constants
from sesurgery.reports.text import fold as report
from sesurgery.spec.latency import Latency
from sesurgery.workspace import OnnxManifest, read_manifest

# The package has functions of these names.
fold_module = importlib.import_module("sesurgery.pipeline.gates.fold")
pair_module = importlib.import_module("sesurgery.pipeline.gates.pair")
RUN = Path("runs/tiny")
SHORT = Latency(rounds=10, repeats=1, placements=4, half_width=None, warmup_seconds=0, threads=1)


def plant(*blocks: int) -> list[str]:
    return plant_constants(RUN, *blocks)


def test_folding_changes_no_more_answers_than_it_predicted(here: Path) -> None:
    planted = plant(0, 2)
    before = sorted(Path("engines").iterdir())
    ended = CliRunner().invoke(program, ["gates", str(RUN), "--fold", "--bound", "0.009", "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)["fold"]
    blocks = {block["key"]: block for block in told["blocks"]}
    assert [key for key, block in blocks.items() if block["folded"]] == planted
    assert all((0 < block["within"] <= told["bound"]) == block["folded"] for block in blocks.values())
    assert told["deciding"] == "256 samples of the training data of runs/tiny"
    assert (told["counted"], told["apart"]) == (1000, True)
    engine = told["engine"]
    assert (engine["blocks"], engine["others"]) == (planted, 0)
    assert engine["measured"]["samples"] == engine["predicted"]["held_out"] == 180
    # The promise: no more flips than predicted, and top-1 changes by no more than what flips.
    assert engine["measured"]["hits"] <= engine["predicted"]["most"]
    assert engine["as_predicted"]
    was, now = engine["top1"]
    assert round(abs(was - now) * 180) <= engine["measured"]["hits"]
    assert engine["latency"]["low"] <= engine["latency"]["value"] <= engine["latency"]["high"]
    assert all(blocks[key]["measured"]["hits"] <= blocks[key]["predicted"]["most"] for key in planted)
    lowering = told["change"]["export"]["lowering"]
    assert lowering[0] == "constant_gates(bound=0.009)"
    # Engines of the comparison are nobody's.
    assert sorted(Path("engines").iterdir()) == before
    # The spec that it prints, from these weights: the same blocks are folded.
    text = pipeline.load_spec("tiny.yaml").with_({"export.lowering": lowering, "name": "folded"}).text()
    Path("folded.yaml").write_text(text)
    made = pipeline.apply(pipeline.load_spec("folded.yaml"), Workspace(), "folded.yaml", RUN).folder
    (built,) = pipeline.build_engines(EnginesRequest(made, Workspace()))
    assert built.manifest.details.lowering == tuple(lowering)
    details = read_manifest(source_of(built), OnnxManifest).details
    assert len([reason for reason in details.lowered if reason.kind == "constant_gates"]) == len(planted)


def test_the_time_that_folding_saves_is_predicted_from_the_prices_of_the_blocks(
    here: Path, monkeypatch, give_other_weights
) -> None:
    planted = plant(0, 2)
    monkeypatch.setattr(bench_prices, "PER_BLOCK", SHORT)
    ended = CliRunner().invoke(program, ["gates", str(RUN), "--fold", "--price", "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)["fold"]
    prices, engine = told["prices"], told["engine"]
    cost = {block["key"]: block["time"] for block in prices["blocks"]}
    assert list(cost) == [block["key"] for block in told["blocks"]]
    assert prices["engine"] == "onnxruntime fp32"
    # Of each block: its price over the time of the engine, with the ends of the interval turned round.
    for block in told["blocks"]:
        price = cost[block["key"]]
        ends = [-price[end] / prices["whole"] for end in ("value", "high", "low")]
        assert [block["time"][end] for end in ("value", "low", "high")] == pytest.approx(ends)
    # Of the engine: the sum of those that are folded, and not of the one that is not.
    folded = sum(cost[key]["value"] for key in planted)
    assert engine["time"]["value"] == pytest.approx(-folded / prices["whole"])
    reach = sum(((cost[key]["high"] - cost[key]["low"]) / 2) ** 2 for key in planted) ** 0.5 / prices["whole"]
    assert engine["time"]["high"] - engine["time"]["value"] == pytest.approx(reach)
    assert engine["time"]["confidence"] == engine["latency"]["confidence"] == 0.95
    assert engine["time_as_predicted"] in (True, False)
    # It is kept beside the run, and the report of a run with these weights has it.
    assert json.loads(pipeline.write_report(RUN, Workspace()).json.read_text())["folding"] == told
    give_other_weights(RUN)
    assert json.loads(pipeline.write_report(RUN, Workspace()).json.read_text())["folding"] is None


def test_a_gain_that_was_not_asked_for_is_not_predicted_and_the_report_says_so(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(fold_module, "prices", lambda subject: pytest.fail("blocks were priced"))
    plant(0)
    found = pipeline.fold(FoldRequest(RUN, Workspace())).folding
    assert found.engine is not None
    assert (found.prices, found.engine.time, found.engine.time_as_predicted) == (None, None, None)
    assert "the predicted gain was not asked for: --price" in report.to_text(found, "runs/tiny")
    assert report.to_json(found)["prices"] is None


def test_nothing_is_priced_where_no_block_may_be_folded(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(fold_module, "prices", lambda subject: pytest.fail("blocks were priced"))
    assert pipeline.fold(FoldRequest(RUN, Workspace(), price=True)).folding.engine is None


@pytest.mark.parametrize("option", [["--price"], ["--bound", "0.1"]])
def test_what_goes_with_fold_is_refused_without_it(option: list[str]) -> None:
    ended = CliRunner().invoke(program, ["gates", str(RUN), *option])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "go with --fold" in ended.stderr


def test_a_block_that_is_not_constant_is_not_folded_and_nothing_is_built(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(pair_module, "build", lambda request: pytest.fail("an engine was built"))
    found = pipeline.fold(FoldRequest(RUN, Workspace())).folding
    assert found.engine is None
    assert not any(block.folded or block.measured for block in found.blocks)
    assert all(block.within > found.bound for block in found.blocks)
    text = report.to_text(found, "runs/tiny")
    assert "no block may be folded" in text
    assert "lowering" not in text
    assert report.to_json(found)["change"] is None


def test_a_prediction_is_not_always_that_nothing_happens(here: Path) -> None:
    """The same blocks, by constants that are far off: flips are seen, and the prediction says so."""
    found = constants(RUN, Workspace(), pipeline.engine().calibration)
    keys = list(found.network.modules)
    far = replace(found.network, constants={key: value * 40 for key, value in found.network.constants.items()})
    assert replace(found, network=far).prediction(keys).flips.hits > found.prediction([]).flips.hits == 0
