"""Networks of 3-d convolutions: blocks on maps [N, C, T, H, W]."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import sesurgery
from sesurgery import pipeline, planner
from sesurgery.accounting import cost
from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph import GraphView, Op
from sesurgery.lowering import PASSES, load
from sesurgery.lowering.base import run
from sesurgery.networks.export import convert, export
from sesurgery.onnxgraph.sessions import session
from sesurgery.onnxgraph.shapes import image_shape
from sesurgery.spec import Spec
from sesurgery.spec.export import Export
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

SHAPE = (3, 4, 8, 8)
CLIPS = torch.zeros(1, *SHAPE)


class Unit(nn.Module):
    def __init__(self, before: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(before, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm3d(channels), nn.ReLU()
        self.conv2 = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.down = nn.Conv3d(before, channels, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.down(x))


class Gate(nn.Module):
    """SE over time, height and width, as people write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc1, self.fc2 = nn.Conv3d(channels, 2, 1), nn.Conv3d(2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(self.pool(x)))))


class Video(nn.Module):
    def __init__(self, gate: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1))
        self.layer1, self.layer2 = Unit(8, 8), Unit(8, 16, 2)
        self.gate = Gate(16) if gate else nn.Identity()
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.gate(self.layer2(self.layer1(self.stem(x)))).mean((2, 3, 4)))


def make_video() -> Video:
    """A factory for specs."""
    return Video()


@pytest.fixture(scope="module")
def video() -> Video:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Video().eval()


@pytest.mark.parametrize("block", ["se", "eca"])
def test_an_identity_start_keeps_function_and_keys_and_one_step_trains_it(block, video):
    changed = sesurgery.insert(video, block=block, example_input=CLIPS, init="identity", expect=2)
    keys = list(video.state_dict())
    assert [key for key in changed.state_dict() if key in keys] == keys
    clips = torch.randn(3, 3, 6, 10, 12)
    for mode in (False, True):
        assert torch.equal(changed.train(mode)(clips), video.train(mode)(clips))
    video.eval()
    changed(clips).square().sum().backward()
    own = [value for key, value in changed.named_parameters() if key not in keys]
    assert own
    assert any(value.grad.any() for value in own)
    before = [value.clone() for value in own]
    torch.optim.SGD(own, lr=0.1).step()
    assert any(not torch.equal(one, other) for one, other in zip(own, before, strict=True))


@pytest.mark.parametrize("block", ["se", "eca"])
def test_a_block_squeezes_over_time_height_and_width(block, video):
    changed = sesurgery.insert(video, block=block, example_input=CLIPS, within="layer1")
    seen = {}
    getattr(changed.layer1, block).register_forward_hook(lambda module, args, out: seen.update(x=args[0], y=out))
    changed(torch.randn(2, *SHAPE))
    gates = seen["y"] / seen["x"]
    assert torch.allclose(gates, gates[:, :, :1, :1, :1].expand_as(gates), atol=1e-4)
    module = getattr(changed.layer1, block)
    if block == "se":
        pooled = seen["x"].mean((2, 3, 4))[..., None, None]
        wanted = torch.sigmoid(module.fc2(torch.relu(module.fc1(pooled))))[..., None]
        assert torch.allclose(gates, wanted.expand_as(gates), atol=1e-5)


def test_the_graph_has_maps_of_four_sizes_and_reads_back(video):
    view = FxSurgeon(SHAPE).view(video)
    conv = next(node for node in view if node.scope == "layer1.conv2")
    assert (conv.op, conv.shape, str(conv.conv)) == (Op.CONV, (8, 4, 8, 8), "1x3x3 s1 p0x1x1 8->8")
    assert str(GraphView.parse(str(view))) == str(view)


def test_a_gate_over_time_is_found_and_not_doubled():
    network = Video(gate=True).eval()
    bare = sesurgery.apply(given({"remove": "se", "expect": 1}), network)
    assert not any(key.startswith("gate.") for key in bare.state_dict())
    with pytest.raises(SesurgeryError, match="it has a channel gate already"):
        sesurgery.insert(network, at=["layer2"], example_input=CLIPS)


def given(rule: dict[str, object]) -> dict[str, object]:
    return {
        "version": 1,
        "model": {"source": "python", "name": f"{__name__}:make_video"},
        "input": {"shape": list(SHAPE)},
        "surgery": [rule],
    }


def test_by_spec_it_is_planned_counted_and_exported(video, tmp_path):
    spec = pipeline.load_spec(given({"insert": {"block": "se", "reduction": 4}, "at": "residual"}))
    made = sesurgery.plan(spec, video)
    assert [site.shape for site in made.sites] == [(8, 4, 8, 8), (16, 2, 4, 4)]
    assert made.table().splitlines()[1].split()[:4] == ["se/layer1[0]", "1", "8", "4x8x8"]
    assert made.stage_line() == "stages: 1 = 4x8x8, 2 = 2x4x4"
    assert json.loads(made.to_json())["sites"][0]["frames"] == 4
    changed = sesurgery.apply(spec, video).eval()
    # 8 -> 2 -> 8 and 16 -> 4 -> 16.
    assert cost(changed, SHAPE).macs - cost(video, SHAPE).macs == 2 * 8 * 2 + 2 * 16 * 4
    assert export(changed, SHAPE, tmp_path / "net.onnx", Export()).worst < 1e-5


@pytest.mark.parametrize("block", ["cbam", "scse", "effective_se", "gather_excite"])
def test_another_block_is_refused_with_the_reason(block, video):
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(video, block=block, example_input=CLIPS)
    said = caught.value.diagnostics[0]
    assert said.message == f"{block}/layer1[0]: '{block}' works on maps [N, C, H, W], and this one is [N, C, T, H, W]"
    assert (said.code, said.hint) == ("SE305", "choose the block 'se' or 'eca'")


def test_an_image_for_a_network_of_clips_says_what_it_takes(video):
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(video, example_input=torch.zeros(1, 3, 8, 8))
    assert caught.value.render() == (
        "error[SE403]: Video convolves over three dimensions ('stem'): maps are [N, C, T, H, W]\n"
        "  hint: give it clips: four sizes, channels, time, height and width"
    )


def test_lowering_leaves_a_block_over_time_as_it_computes(video):
    changed = sesurgery.insert(video, example_input=CLIPS, reduction=4).eval()
    model = convert(changed, SHAPE, Export())
    done = run(model, load([name for name in PASSES.names() if name != "constant_gates"]), verify=True)
    clips = torch.randn(3, *SHAPE)
    with torch.no_grad():
        wanted = changed(clips).numpy()
    (found,) = session(done.model).run(None, {session(done.model).get_inputs()[0].name: clips.numpy()})
    assert np.abs(found - wanted).max() < 1e-4


def on_file(block: str) -> Spec:
    rule = {"insert": {"block": block}, "at": "residual", "expect": 2}
    return pipeline.load_spec({**given(rule), "model": {"source": "onnx", "name": "video.onnx"}})


@pytest.mark.parametrize("block", ["se", "eca"])
def test_a_file_of_clips_has_the_sites_of_its_network_and_computes_what_the_changed_network_does(block, video):
    spec, surgeon = on_file(block), OnnxSurgeon(SHAPE)
    file = convert(video, SHAPE, Export())
    view = surgeon.view(file)
    conv = next(node for node in view if node.scope == "layer1.conv2" and node.op is Op.CONV)
    assert (conv.shape, str(conv.conv)) == ((8, 4, 8, 8), "1x3x3 s1 p0x1x1 8->8")
    plan, wanted = planner.plan(spec, view), sesurgery.plan(spec, video)
    assert [(site.key, site.shape) for site in plan.sites] == [(site.key, site.shape) for site in wanted.sites]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        changed = sesurgery.apply(spec, video).eval()
    own = {key: value.numpy() for key, value in changed.state_dict().items()}
    opened = session(surgeon.apply(file, plan, own))
    clips = torch.randn(3, *SHAPE)
    with torch.no_grad():
        expected = changed(clips).numpy()
        before = video(clips).numpy()
    (found,) = opened.run(None, {opened.get_inputs()[0].name: clips.numpy()})
    assert np.abs(found - expected).max() < 1e-5 < np.abs(before - expected).max()


def test_a_gate_over_time_is_removed_from_a_file():
    network = Video(gate=True).eval()
    spec, surgeon = pipeline.load_spec(given({"remove": "se", "expect": 1})), OnnxSurgeon(SHAPE)
    file = convert(network, SHAPE, Export())
    opened = session(surgeon.apply(file, planner.plan(spec, surgeon.view(file))))
    clips = torch.randn(2, *SHAPE)
    network.gate = nn.Identity()
    with torch.no_grad():
        expected = network(clips).numpy()
    (found,) = opened.run(None, {opened.get_inputs()[0].name: clips.numpy()})
    assert np.abs(found - expected).max() < 1e-5


def test_a_file_of_clips_refuses_other_blocks_and_images(video):
    file = convert(video, SHAPE, Export())
    surgeon = OnnxSurgeon(SHAPE)
    with pytest.raises(SesurgeryError) as caught:
        surgeon.apply(file, planner.plan(on_file("cbam"), surgeon.view(file)))
    assert (caught.value.diagnostics[0].code, caught.value.diagnostics[0].hint) == (
        "SE305",
        "choose the block 'se' or 'eca'",
    )
    with pytest.raises(SesurgeryError, match="does not take an input of 3x8x8: its input is 3x4x8x8"):
        OnnxSurgeon((3, 8, 8)).view(file)
    assert image_shape(file) == SHAPE
