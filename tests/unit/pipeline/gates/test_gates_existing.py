"""Gates that a network has of its own: named as they were planted, beside our blocks and without them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.engines import source_of
from fixtures.planted import Planted, plant
from fixtures.sharing import Once
from torch import nn

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline import EnginesRequest, FoldRequest, Workspace
from sesurgery.pipeline.gates.gates import GateResult
from sesurgery.reports.text.gates import draw, to_json, to_text
from sesurgery.studies.cells import NO_BLOCKS
from sesurgery.training.data import data_of
from sesurgery.workspace import OnnxManifest, read_manifest

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "own",
    "model": {"source": "python", "name": "fixtures.own_gates:three_spellings"},
    "input": {"shape": [1, 8, 8]},
    "surgery": [NO_BLOCKS],
    "train": {"data": {"dataset": "digits", "held_out": 0.1}},
}
PLANTED = (
    Planted(3, 1, 2),
    Planted(2, 5, 1),
    Planted(1, 2, 4),
    Planted(constant=16),
    Planted(dead=7, saturated=9),
    Planted(dead=10, saturated=1, constant=1),
)
ADVICE = ("keep", "keep", "keep", "fold", "look: every channel", "look: half")
CASES = [(unit, kind) for unit in range(6) for kind in ("dead", "saturated", "constant", "advice")]


def made(**changes: Any) -> Path:
    """The folder of a run in the current folder of that spec with these changes."""
    return pipeline.apply(pipeline.load_spec({**SPEC, **changes}), Workspace(), "own.yaml").folder


def python(name: str) -> dict[str, str]:
    return {"source": "python", "name": f"fixtures.own_gates:{name}"}


def planted() -> Path:
    """A run with those gates, planted from the first to the last."""
    folder = made()
    run, rng = checkpoint.read(folder, pipeline.catalogs()), np.random.default_rng(0)
    images = data_of(run.spec).held_out.images[:]
    for unit, each in zip(run.network.units, PLANTED, strict=True):
        plant(run.network, unit.gate, images, each.kinds, rng)
    checkpoint.save(folder, run.network, run.spec, run.plan, "test", run.manifest.details)
    return folder


@pytest.fixture(scope="module")
def found(once: Once) -> list[dict[str, Any]]:
    def make() -> None:
        seen = pipeline.gates(planted(), classes=10, samples=1000)
        assert seen.existing == tuple(block.key for block in seen.blocks)
        Path("blocks.json").write_text(json.dumps([asdict(block) for block in seen.blocks]))

    return json.loads((once("own_gates", make) / "blocks.json").read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("unit", "kind"), CASES)
def test_what_was_planted_in_a_gate_of_the_network_is_named(unit: int, kind: str, found: list[dict[str, Any]]) -> None:
    assert found[unit]["key"] == f"units.{unit}.gate"
    if kind == "advice":
        assert found[unit]["advice"].startswith(ADVICE[unit])
    else:
        assert found[unit][kind] == getattr(PLANTED[unit], kind)


def values(network: nn.Module, modules: dict[str, str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What these modules give for the images."""
    seen: dict[str, torch.Tensor] = {}
    for key, path in modules.items():
        network.get_submodule(path).register_forward_hook(lambda _, given, out, key=key: seen.update({key: out}))
    with torch.no_grad():
        network.eval()(images)
    return seen


def require_means(found: GateResult, run: checkpoint.Run, expected: dict[str, torch.Tensor]) -> None:
    """The mean gates of each class are those of the expected gates [N, C, 1, 1] on all held-out samples."""
    labels = data_of(run.spec).held_out.labels
    blocks = {block.key: block for block in found.blocks}
    for key, gates in expected.items():
        for label, of in enumerate(blocks[key].classes):
            mean = gates.flatten(1)[labels == label].nanmean(0)
            np.testing.assert_allclose(of.mean, mean.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "activation"),
    [
        ({"source": "timm", "name": "efficientnet_b0"}, "gate"),
        ({"source": "timm", "name": "seresnet18"}, "gate"),
        ({"source": "torchvision", "name": "mobilenet_v3_small"}, "scale_activation"),
    ],
    ids=["efficientnet_b0", "seresnet18", "mobilenet_v3_small"],
)
def test_a_librarys_gates_are_what_its_activations_give(model: dict[str, str], activation: str, folder: Path) -> None:
    run_folder = made(model=model, input={"shape": [3, 16, 16]})
    run = checkpoint.read(run_folder, pipeline.catalogs())
    paths = [path for path, _ in run.network.named_modules() if path.endswith(f".{activation}")]
    modules = {path.removesuffix(f".{activation}"): path for path in paths}
    # Fresh gates are all about a half: these are told apart.
    with torch.no_grad():
        for key in modules:
            for value in run.network.get_submodule(key).parameters():
                value.normal_(generator=torch.Generator().manual_seed(len(key) + value.numel()))
    checkpoint.save(run_folder, run.network, run.spec, run.plan, "test", run.manifest.details)
    seen = pipeline.gates(run_folder, classes=10, samples=1000)
    assert [block.key for block in seen.blocks] == list(modules) == list(seen.existing)
    assert seen.left == ()
    require_means(seen, run, values(run.network, modules, data_of(run.spec).held_out.images[:]))


def test_both_kinds_are_shown_where_both_are_there(folder: Path) -> None:
    run_folder = made(surgery=[{"insert": {"block": "se", "reduction": 4}, "at": "post"}])
    run = checkpoint.read(run_folder, pipeline.catalogs())
    ours = tuple(site.key for site in run.plan.sites)
    theirs = tuple(f"units.{unit}.gate" for unit in range(6))
    seen = pipeline.gates(run_folder, classes=10, samples=1000)
    assert len(ours) == 6
    assert tuple(block.key for block in seen.blocks) == ours + theirs
    assert seen.existing == theirs
    inner = {f"units.{unit}.gate": f"units.{unit}.gate.fc2" for unit in range(6)}
    own = {site.key: f"{site.module}.fc2" for site in run.plan.sites}
    logits = values(run.network, inner | own, data_of(run.spec).held_out.images[:])
    # A linear layer over a map whose channels are last gives [N, 1, 1, C].
    require_means(seen, run, {key: torch.sigmoid(value) for key, value in logits.items()})
    text = to_text(seen)
    assert f"no blocks of ours, the network brings them along: {', '.join(theirs)}" in text
    assert to_json(seen)["existing"] == list(theirs)
    draw(seen, Path("gates.png"), "png")
    assert Path("gates.png").read_bytes().startswith(b"\x89PNG")
    # Only blocks of the spec can be left out of it, also where others do nothing.
    with pytest.raises(SesurgeryError, match=r"SE201"):
        pipeline.prune(only_idle(seen, theirs), Path("pruned.yaml"))


def only_idle(found: GateResult, keys: tuple[str, ...]) -> GateResult:
    blocks = (replace(block, constant_within=0.0 if block.key in keys else 0.5) for block in found.blocks)
    return replace(found, blocks=tuple(blocks))


def test_a_gate_beside_the_map_itself_is_one_plus_its_factor(folder: Path) -> None:
    run_folder = made(model=python("one_more"))
    run = checkpoint.read(run_folder, pipeline.catalogs())
    seen = pipeline.gates(run_folder, classes=10, samples=1000)
    assert [block.saturated for block in seen.blocks] == [0, None]
    first, second = seen.existing
    watched = {first: f"{first}.fc2", second: f"{second}.fc2", "map": second}
    given = values(run.network, watched, data_of(run.spec).held_out.images[:])
    # It does not show in a channel that is zero all over.
    shows = given["map"].abs().amax((2, 3), keepdim=True) > 0
    beside = torch.sigmoid(given[second]).add(1).where(shows, float("nan"))
    require_means(seen, run, {first: torch.sigmoid(given[first]), second: beside})


@pytest.mark.parametrize(
    ("network", "shown", "left"),
    [
        ("hidden", ("units.0.gate", "units.2.gate"), ("units.1.gate",)),
        ("lying", (), ("units.0.gate", "units.1.gate")),
    ],
)
def test_a_gate_without_a_graph_that_is_its_function_is_left_and_said(
    network: str, shown: tuple[str, ...], left: tuple[str, ...], folder: Path
) -> None:
    seen = pipeline.gates(made(model=python(network)))
    assert (tuple(block.key for block in seen.blocks), seen.left) == (shown, left)
    assert all(f"{key}: its gate differs over the map, or lies in code" in to_text(seen) for key in left)


def test_folding_and_pruning_say_what_else_can_be_done(folder: Path) -> None:
    """And what they say does what it says."""
    run_folder = planted()
    seen = pipeline.gates(run_folder, classes=10, samples=1000)
    assert "the network brings these gates along: none is a block of ours" in to_text(seen)
    hint = r"(?s)SE402.*runs/own has no block of ours.*`export: \{lowering: \[constant_gates\]\}`.*`remove: any`"
    with pytest.raises(SesurgeryError, match=hint):
        pipeline.fold(FoldRequest(run_folder, Workspace()))
    with pytest.raises(SesurgeryError, match=hint):
        pipeline.prune(seen, Path("pruned.yaml"))
    with pytest.raises(SesurgeryError, match=hint):
        pipeline.needless(run_folder, Workspace(), 0.1)
    idle = [block.key for block in seen.blocks if block.idle]
    assert idle == ["units.3.gate"]
    folded = pipeline.load_spec({**SPEC, "name": "folded", "export": {"lowering": ["constant_gates"]}})
    into = pipeline.apply(folded, Workspace(), "folded.yaml", run_folder).folder
    (built,) = pipeline.build_engines(EnginesRequest(into, Workspace()))
    details = read_manifest(source_of(built), OnnxManifest).details
    assert [reason.kind for reason in details.lowered].count("constant_gates") == 1
    without = made(name="without", surgery=[{"remove": "any", "within": idle}])
    assert pipeline.gates(without).existing == tuple(block.key for block in seen.blocks if block.key not in idle)


def test_a_run_without_any_gate_says_so(folder: Path) -> None:
    run_folder = made(surgery=[{"remove": "any"}])
    with pytest.raises(SesurgeryError, match=r"(?s)SE402.*runs/own has no channel gate.*whose network has gates"):
        pipeline.gates(run_folder)


def test_the_gates_of_a_network_are_told_by_epoch_too(folder: Path) -> None:
    train = {**SPEC["train"], "epochs": 2, "keep_epochs": 1, "threads": 1}
    run_folder = made(train=train)
    pipeline.train(pipeline.TrainRequest(run_folder))
    moved = pipeline.gates_by_epoch(run_folder, samples=5)
    assert [epoch for epoch, _ in moved.epochs] == [0, 1, 2]
    means = [[block.mean for block in blocks] for _, blocks in moved.epochs]
    assert len(means[0]) == 6
    assert means[0] != means[1] != means[2]
    assert moved.epochs[-1][1] == pipeline.gates(run_folder, samples=5).blocks
