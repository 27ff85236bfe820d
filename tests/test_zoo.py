"""The specs of published networks: each plans the sites and the parameters that its papers and other libraries give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fixtures.sharing import Once
from fixtures.thinned import largest, signature, thin, without_values
from timm import create_model
from torch import nn

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import sources
from sesurgery.networks.export import export
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.spec import Spec, zoo
from sesurgery.spec.export import Export

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "plans" / "zoo"
PARAMETERS = {
    # Of the network with SE: the formula of the paper; pytorchcv's seresnet200b; timm's networks of the same names.
    "seresnet18": 11_778_592,
    "seresnet34": 21_958_868,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnet200": 71_835_864,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "senet154": 115_088_984,
    # pytorchcv's sepreresnet50b and its like, less the norm behind their stem.
    "seresnetv2_50": 28_080_472 - 128,
    "seresnetv2_101": 49_319_320 - 128,
    "seresnetv2_152": 66_814_296 - 128,
    "seresnetv2_200": 71_828_312 - 128,
    # pytorchcv's seresnet20_cifar10 and its like, less the biases of the blocks; the second was published.
    "seresnet20": 274_847 - 357,
    "seresnet56": 861_818,
    "seresnet110": 1_744_952 - 2_142,
}
BACKBONES = {
    # Of the plain network: tables of the papers, and pytorchcv's networks.
    "seresnet32": 466_906,
    "seresnet44": 661_338,
    "sepreresnet110": 1_730_522,
    "seresnet164": 1_703_258,
    "sewrn16_8": 10_961_370,
    "seresnext29_8x64d": 34_426_698,
    "seinception_v3": 23_834_568,
    "seinception_v4": 42_679_816,
    "seinception_resnet_v2": 55_843_464,
    # Less the biases of the convolutions before norms.
    "sebn_inception": 11_295_240 - 10_016,
    "sevgg16_bn": 138_365_992,
    "semobilenet": 4_231_976,
    "seshufflenet": 1_865_728,
    "sedensenet121": 7_978_856,
    # In no library: the stem; basic blocks of 64 and of 128; bottlenecks of 1,024; what projects; the classifier.
    "seresnet46": (3 * 49 * 64 + 2 * 64)
    + 4 * 2 * (9 * 64 * 64 + 2 * 64)
    + (9 * 64 * 128 + 11 * 9 * 128 * 128 + 12 * 2 * 128)
    + (128 * 256 + 7 * 1024 * 256 + 8 * (9 * 256 * 256 + 256 * 1024) + 8 * 2 * (256 + 256 + 1024))
    + (64 * 128 + 2 * 128 + 128 * 1024 + 2 * 1024)
    + (1024 * 10 + 10),
}
SIDES = {"seinception_v3": 128, "seinception_v4": 128, "seinception_resnet_v2": 128}
"""Of the images that the short networks are tried on, where that is not the spec's own (up to 64)."""
SHORT = {
    "sedensenet121": {
        "model.source": "python",
        "model.name": "torchvision.models.densenet:DenseNet",
        "model.kwargs": {"block_config": [2, 2, 2, 2]},
        "surgery[0].at.names": ["features.denseblock?.denselayer?"],
    }
}
"""What makes a network short whose units are no two of one size."""


REPEATED = {
    "seinception_v3": ("Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c"),
    "sebn_inception": ("inception4a", "inception4b", "inception4d"),
}
"""Modules that stand in no sequence, are as one that is kept but for their widths, and give as many as they take."""


@dataclass(frozen=True)
class Tried:
    """What came of a spec: its plan as text and its costs; sites, gradients and parity of its network made short."""

    plan: str
    before: int
    after: int
    short: dict[str, Any]


@pytest.fixture(scope="session")
def tried(once: Once) -> Callable[[str], Tried]:
    """Each spec is planned once a test run, and networks that are the same when they are short are tried once."""

    def run(name: str) -> Tried:
        def make() -> None:
            spec = pipeline.load_spec(zoo.path_of(name))
            with without_values():
                planned = pipeline.plan(spec)
            text = "\n".join([planned.plan.table(), planned.plan.stage_line(), planned.summary()]) + "\n"
            Path("plan.txt").write_text(text, encoding="utf-8")
            short = short_of(name, spec, planned.network.module)
            tried_once = once(f"zoo-short-{signature(short.network.module)}-{short.spec.input.shape[1]}", short.run)
            found = {"before": planned.before.params, "after": planned.after.params, "short": str(tried_once)}
            Path("tried.json").write_text(json.dumps(found))

        folder = once(f"zoo-{name}", make)
        found = json.loads((folder / "tried.json").read_text())
        short = json.loads((Path(found["short"]) / "short.json").read_text())
        return Tried((folder / "plan.txt").read_text(encoding="utf-8"), found["before"], found["after"], short)

    return run


@dataclass(frozen=True)
class Short:
    """A network with each repeated unit once, and the spec with the rule for it."""

    spec: Spec
    network: TorchNetwork

    def run(self) -> None:
        """Surgery, a training step, and the ONNX file against the network in ONNX Runtime."""
        plan = self.network.plan(self.spec)
        changed = self.network.apply(plan).module
        images = torch.rand(2, *self.spec.input.shape, generator=torch.Generator().manual_seed(0))
        changed.train()
        logits = changed(images)
        logits.square().mean().backward()
        without = [
            key for key, value in changed.named_parameters() if value.grad is None or not value.grad.isfinite().all()
        ]
        report = export(changed, self.spec.input.shape, Path("short.onnx"), Export(max_abs=1e9))
        Path("short.onnx").unlink()
        Path("short.json").write_text(
            json.dumps(
                {
                    "sites": len(plan.sites),
                    "logits": list(logits.shape),
                    "without_gradient": without,
                    "parity": report.worst / largest(changed, images),
                }
            )
        )


def short_of(name: str, spec: Spec, module: nn.Module) -> Short:
    side = SIDES.get(name, min(64, spec.input.shape[1]))
    changes = {"surgery[0].expect": None, "input.shape": [3, side, side], **SHORT.get(name, {})}
    changed = spec.with_(changes)
    whole = sources.build(changed) if name in SHORT else module
    for repeated in REPEATED.get(name, ()):
        setattr(whole, repeated, nn.Identity())
    if name == "sevgg16_bn":
        # A hundred million values of a linear layer tell nothing of blocks.
        whole.classifier = nn.Linear(512 * 7 * 7, 1000)
    return Short(changed, TorchNetwork(thin(whole), changed.input.shape))


def test_every_spec_of_the_zoo_is_in_the_package_and_says_what_it_is():
    assert [f"{name}.yaml" for name in zoo.names()] == sorted(path.name for path in (ROOT / "specs/zoo").iterdir())
    assert len(zoo.names()) >= 31
    for name in zoo.names():
        assert "arXiv" in zoo.title(name) or name == "seresnet46"
        assert re.search(r"^# Project: .*\.$", zoo.path_of(name).read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", zoo.names())
def test_a_spec_of_the_zoo_passes_check(name):
    spec = pipeline.load_spec(zoo.path_of(name))
    assert spec.name == name
    (rule,) = spec.surgery
    assert rule.expect


@pytest.mark.parametrize("name", zoo.names())
def test_the_plan_of_a_spec_of_the_zoo_is_the_one_that_was_read(name, tried, update_golden):
    golden = GOLDEN / f"{name}.txt"
    if update_golden:
        golden.write_text(tried(name).plan, encoding="utf-8")
    assert tried(name).plan == golden.read_text(encoding="utf-8")


def test_every_golden_plan_of_the_zoo_belongs_to_a_spec():
    assert {path.stem for path in GOLDEN.iterdir()} == {*zoo.names()}


@pytest.mark.parametrize("name", [*PARAMETERS, *BACKBONES])
def test_a_network_of_the_zoo_has_the_parameters_of_its_paper_or_of_another_library(name, tried):
    if name in PARAMETERS:
        assert tried(name).after == PARAMETERS[name]
    else:
        assert tried(name).before == BACKBONES[name]


@pytest.mark.parametrize("name", zoo.names())
def test_a_network_of_the_zoo_takes_a_training_step_and_is_the_same_in_onnx_runtime(name, tried):
    short = tried(name).short
    classes = 10 if pipeline.load_spec(zoo.path_of(name)).input.shape[1] == 32 else 1000
    assert short["sites"]
    assert short["logits"] == [2, classes]
    assert short["without_gradient"] == []
    assert short["parity"] <= 1e-4


def test_every_network_of_the_zoo_has_a_reference():
    assert {*PARAMETERS, *BACKBONES} == {*zoo.names()}


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
