"""A run on disk: what is written together is read together, or not at all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sesurgery import pipeline
from sesurgery.artifacts import digest_text
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.planner import Plan
from sesurgery.workspace import Provenance, RunManifest, describe, manifest_path, read_manifest

SPEC = """\
# a comment that must survive
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8}}
input: {shape: [3, 16, 16]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run that was applied and whose values then changed, as training changes them."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPEC)
    applied = pipeline.apply(pipeline.load_spec("tiny.yaml"), pipeline.Workspace(), "tiny.yaml")
    network = applied.network
    with torch.no_grad():
        for index, part in enumerate(network.parameters()):
            part.fill_(0.01 * index)
        network.bn1.running_mean.fill_(0.5)
    details = read_manifest(applied.folder / checkpoint.WEIGHTS).details
    planned = applied.planned
    checkpoint.save(applied.folder, network, planned.spec, planned.plan, "sesurgery train tiny.yaml", details)
    return applied.folder


def test_what_was_trained_reads_back_value_for_value(run):
    network = checkpoint.read(run, pipeline.catalogs()).network
    assert not network.training
    assert [part.flatten()[0].item() for part in network.parameters()] == [
        pytest.approx(0.01 * index) for index, _ in enumerate(network.parameters())
    ]
    assert network.get_submodule("layer1.0.se.fc1").weight.shape == (4, 16, 1, 1)
    assert network.bn1.running_mean.tolist() == [0.5] * 16


def test_the_spec_is_kept_as_it_was_written(run):
    assert (run / "spec.yaml").read_text() == SPEC
    assert checkpoint.read_spec(run, pipeline.catalogs()).name == "tiny"


def test_the_keys_on_disk_are_the_networks_own(run):
    with safe_open(run / "weights.safetensors", framework="np") as file:
        keys = set(file.keys())
    assert keys == set(checkpoint.read(run, pipeline.catalogs()).network.state_dict())


def test_reading_draws_nothing_from_the_callers_generator(run):
    before = torch.random.get_rng_state()
    checkpoint.read(run, pipeline.catalogs())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_file_of_a_run_can_hold_code(run):
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert found - {".lock"} == {
        "spec.yaml",
        "plan.json",
        "weights.safetensors",
        "weights.safetensors.manifest.json",
        "reports/plan.cost.json",
    }
    assert not any(
        zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80" for path in run.rglob("*") if path.is_file()
    )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@dataclass(frozen=True)
class Tampering:
    name: str
    file: str
    change: Callable[[Path], object]


TAMPERINGS = [
    Tampering("one bit of the weights", "weights.safetensors", flip),
    Tampering(
        "a value in the spec",
        "spec.yaml",
        lambda path: path.write_text(path.read_text().replace("reduction: 4", "reduction: 8")),
    ),
    Tampering(
        "a channel count in the plan",
        "plan.json",
        lambda path: path.write_text(path.read_text().replace('"channels": 16', '"channels": 17')),
    ),
    Tampering("a plan that ends early", "plan.json", lambda path: path.write_text(path.read_text()[:100])),
    Tampering("a plan that is not text", "plan.json", lambda path: path.write_bytes(b"\xff\xfe")),
    Tampering("a plan that is gone", "plan.json", lambda path: path.unlink()),
    Tampering("a manifest that is gone", "weights.safetensors.manifest.json", lambda path: path.unlink()),
    Tampering("a manifest that is none", "weights.safetensors.manifest.json", lambda path: path.write_text("{}")),
]


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda item: item.name)
def test_a_file_that_is_not_the_one_written_is_refused_by_name(tampering, run):
    tampering.change(run / tampering.file)
    with pytest.raises(SesurgeryError) as caught:
        checkpoint.read(run, pipeline.catalogs())
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "SE401"
    assert tampering.file in diagnostic.message
    assert diagnostic.hint


@pytest.mark.parametrize("tampering", TAMPERINGS[:6], ids=lambda item: item.name)
def test_the_refusal_names_a_command_that_makes_the_run_again(tampering, run):
    tampering.change(run / tampering.file)
    with pytest.raises(SesurgeryError) as caught:
        checkpoint.read(run, pipeline.catalogs())
    # Of the spec: a command that starts by reading this run would only be refused again.
    assert "sesurgery train tiny.yaml" in str(caught.value.diagnostics[0].hint)


def test_a_comment_in_the_spec_may_change(run):
    path = run / "spec.yaml"
    path.write_text(path.read_text().replace("a comment that must survive", "another"))
    assert checkpoint.read(run, pipeline.catalogs()).spec.name == "tiny"


def of_an_earlier_version(run: Path) -> str:
    """Give a run the digest that its files had when every default was part of it; returns that digest."""
    old = digest_text(checkpoint.read_spec(run, pipeline.catalogs()).model_dump_json(by_alias=True))
    plan = json.loads((run / "plan.json").read_text()) | {"spec_digest": old}
    (run / "plan.json").write_text(json.dumps(plan))
    weights, manifest = run / checkpoint.WEIGHTS, read_manifest(run / checkpoint.WEIGHTS, RunManifest)
    describe(
        weights,
        Provenance(
            RunManifest,
            manifest.name,
            manifest.command,
            parents=(run / checkpoint.SPEC, run / checkpoint.PLAN),
            spec_digest=old,
            plan_digest=digest_text((run / "plan.json").read_text()),
            details=manifest.details,
        ),
    )
    return old


def test_a_run_of_an_earlier_version_is_known_by_the_text_of_its_spec(run):
    old = of_an_earlier_version(run)
    read = checkpoint.read(run, pipeline.catalogs())
    assert read.manifest.spec_digest == old != read.spec.digest
    # Written again, by a training, it is still a run that can be read.
    checkpoint.save(run, read.network, read.spec, read.plan, "sesurgery train", read.manifest.details)
    assert checkpoint.read(run, pipeline.catalogs()).plan == read.plan
    # And the same spec makes no second run beside it.
    assert pipeline.Workspace().fresh_run(pipeline.load_spec("tiny.yaml")) == run


def test_another_text_under_the_digest_of_an_earlier_version_is_se401(run):
    of_an_earlier_version(run)
    (run / "spec.yaml").write_text(SPEC.replace("reduction: 4", "reduction: 8"))
    with pytest.raises(SesurgeryError, match=r"SE401.*is not the spec that this run was made with"):
        checkpoint.read(run, pipeline.catalogs())


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_se402(folder, run):
    with pytest.raises(SesurgeryError, match=r"SE402.*is not a run") as caught:
        checkpoint.read(Path(folder), pipeline.catalogs())
    assert "sesurgery apply" in str(caught.value.diagnostics[0].hint)


def rewrite_plan(run: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Another plan, as if the run had been made with it."""
    path = run / "plan.json"
    data = json.loads(path.read_text())
    change(data)
    text = Plan.from_json(json.dumps(data), pipeline.catalogs().blocks).to_json()
    path.write_text(text)
    manifest = read_manifest(run / "weights.safetensors")
    describe(
        run / "weights.safetensors",
        Provenance(
            RunManifest,
            manifest.name,
            manifest.command,
            spec_digest=manifest.spec_digest,
            plan_digest=digest_text(text),
            details=manifest.details,
        ),
    )
    assert manifest_path(run / "weights.safetensors").is_file()


def test_a_plan_replays_where_another_version_only_named_the_values_differently(run):
    def rename(data):
        data["view_digest"] = "0" * 64
        for site in data["sites"]:
            site["value"] = "elsewhere_" + site["value"]
            site["uses"] = [{"user": "elsewhere", "slot": 0}]

    expected = checkpoint.read(run, pipeline.catalogs()).network
    rewrite_plan(run, rename)
    network = checkpoint.read(run, pipeline.catalogs()).network
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), expected(x))


def test_a_plan_for_a_network_of_other_sites_is_se403(run):
    def widen(data):
        data["view_digest"] = "0" * 64
        data["sites"][0]["channels"] = 17

    rewrite_plan(run, widen)
    with pytest.raises(SesurgeryError, match=r"SE403.*does not fit .* as it is installed here"):
        checkpoint.read(run, pipeline.catalogs())
