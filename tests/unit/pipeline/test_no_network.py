"""A report reads what was stored; a process that asks for one run several times replays it once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sesurgery import pipeline
from sesurgery.networks import block_costs, checkpoint, sources
from sesurgery.pipeline import Workspace, report
from sesurgery.reports import results

RUN = Path("runs/tiny")
FP32, FP16 = (Path(f"engines/tiny.onnxruntime.{precision}.onnx") for precision in ("fp32", "fp16"))


@pytest.fixture
def built_networks(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that are built from now on, by their names; no network of an earlier test is at hand."""
    checkpoint.forget()
    names: list[str] = []
    build = sources.build

    def counted(spec, **how):
        names.append(spec.model.name)
        return build(spec, **how)

    monkeypatch.setattr(sources, "build", counted)
    return names


def test_a_report_opens_no_network(built_networks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_costs, "site_costs", None)
    made = report.assemble(RUN, Workspace())
    assert built_networks == []
    assert [site.key for site in made.network.sites] == ["se/layer1.0[0]", "se/layer2.0[0]", "se/layer3.0[0]"]
    assert made.network.params_after - made.network.params_before == sum(site.params for site in made.network.sites)


def test_the_report_of_a_run_whose_costs_were_not_stored_is_the_same(built_networks: list[str]) -> None:
    before = report.assemble(RUN, Workspace()).network
    results.NETWORK.file(RUN, results.PLAN).unlink()
    assert report.assemble(RUN, Workspace()).network == before
    assert built_networks == []


def test_costs_of_another_plan_are_not_told(here: Path) -> None:
    path = results.NETWORK.file(RUN, results.PLAN)
    path.write_text(path.read_text().replace('"params_before": ', '"params_before": 9'))
    wrong = report.assemble(RUN, Workspace()).network.params_before
    digest = checkpoint.read(RUN, pipeline.catalogs()).plan.digest
    path.write_text(path.read_text().replace(digest, "0" * 64))
    assert str(wrong) == f"9{report.assemble(RUN, Workspace()).network.params_before}"


def test_two_engines_of_a_run_are_verified_with_one_replay(built_networks: list[str]) -> None:
    for engine in (FP32, FP16):
        assert pipeline.verify(engine).failures == ()
    pipeline.export(RUN, Workspace())
    assert len(built_networks) == 1


def test_what_is_done_to_one_network_is_not_done_to_the_next(here: Path) -> None:
    first = checkpoint.read(RUN, pipeline.catalogs()).network
    expected = {key: value.clone() for key, value in first.state_dict().items()}
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    first.train()
    second = checkpoint.read(RUN, pipeline.catalogs()).network
    assert not second.training
    assert all(torch.equal(value, expected[key]) for key, value in second.state_dict().items())


def test_other_weights_are_read_anew(built_networks: list[str], give_other_weights) -> None:
    first = checkpoint.read(RUN, pipeline.catalogs()).network.fc.weight
    give_other_weights(RUN)
    second = checkpoint.read(RUN, pipeline.catalogs()).network.fc.weight
    assert torch.allclose(second, 1.01 * first)
    assert len(built_networks) == 2
