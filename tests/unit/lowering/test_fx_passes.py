"""The passes on a network's graph: what moves, what does not and why, and that the function stays, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, fx, nn

from sesurgery.blocks.se import SE
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import fx as _fx
from sesurgery.lowering.fx import graph, lower
from sesurgery.lowering.fx.layout import channels_last
from sesurgery.lowering.fx.passes.squeeze_hoist import SqueezeHoist
from sesurgery.lowering.fx.precision import to_half

SHAPE = (4, 9, 8)
PASSES = ("squeeze_hoist", "squeeze_hoist_spatial")
EXACT = 1e-12


class LinearSE(nn.Module):
    """SE as many write it: two linear layers on a flat vector."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.layers = nn.Sequential(nn.Linear(channels, 3), nn.ReLU(), nn.Linear(3, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        return x * self.layers(self.pool(x).view(batch, channels)).view(batch, channels, 1, 1).expand_as(x)


class Branch(nn.Module):
    """A convolution with its norm, a block, the residual sum and the activation."""

    def __init__(self, block: nn.Module, *, ins: int = 4, act: bool = False, other: bool = False, **conv: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, 8, bias=False, **{"kernel_size": 1, **conv})
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU() if act else nn.Identity()
        self.block, self.other = block, other
        for value in self.norm.parameters():
            nn.init.uniform_(value, 0.5, 1.0)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        u = self.act(self.norm(self.conv(x)))
        out = self.block(u)
        out += u.tanh() if self.other else 1.0
        return out.relu_()


def branch(make: Callable[[], nn.Module] = lambda: SE(width=3).build(8), **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Branch(make(), **options).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SE(width=3).build(8),
        lambda: SE(width=3, bias=False, init="identity").build(8),
        lambda: timm.layers.SqueezeExcite(8, rd_channels=3),
        lambda: torchvision.ops.SqueezeExcitation(8, 3),
        lambda: LinearSE(8),
    ],
    ids=["ours", "ours without bias", "timm", "torchvision", "linear layers"],
)
def test_the_squeeze_of_a_1x1_convolution_moves_whoever_wrote_the_block(make: Callable[[], nn.Module]) -> None:
    lowered = lower(branch(make), SHAPE, (1, 8), PASSES)
    (edit,) = [edit for edit in lowered.edits if edit.changed and "averages" in edit.why]
    assert edit.why == "the squeeze averages 4 channels before the convolution, not 8 after it"
    assert edit.where.endswith("over conv")
    assert 0 <= lowered.differences["squeeze_hoist"] <= EXACT
    (source,) = lowered.module.graph.find_nodes(op="placeholder")
    # What is averaged is the input itself, and nothing but the scaling reads the convolution.
    (mean,) = lowered.module.graph.find_nodes(op="call_function", target=torch.ops.aten.mean.dim)
    assert mean.args[0] is source
    convolution = next(node for node in source.users if node.target is torch.ops.aten.conv2d.default)
    assert [user.target for user in convolution.users] == [torch.ops.aten.mul.Tensor]


@pytest.mark.parametrize(
    "conv",
    [
        {"kernel_size": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"kernel_size": (2, 1), "stride": 2, "padding": 1, "ins": 2},
        {"kernel_size": 2, "padding": 2, "dilation": 2},
        {"kernel_size": 2, "groups": 2, "padding": 1},
        {"kernel_size": 1, "stride": 2, "ins": 1},
    ],
    ids=str,
)
def test_the_squeeze_of_a_spatial_convolution_moves_exactly_border_and_all(conv: dict[str, object]) -> None:
    ins = int(conv.get("ins", 4))  # type: ignore[call-overload]
    lowered = lower(branch(**conv), (ins, 9, 8), (1, 8), PASSES)
    changed = [edit for edit in lowered.edits if edit.changed and "taps" in edit.why]
    assert len(changed) == 1, lowered.edits
    assert 0 <= lowered.differences["squeeze_hoist_spatial"] <= EXACT


@pytest.mark.parametrize(
    ("options", "shape", "why"),
    [
        ({"act": True}, SHAPE, "comes from aten.relu.default, not directly from a convolution"),
        ({"other": True}, SHAPE, "another reader than the gate, aten.tanh.default"),
        ({"make": lambda: SE(width=3, squeeze="max").build(8)}, SHAPE, "it is a maximum, not a mean"),
        ({"make": lambda: timm.layers.EcaModule(8)}, SHAPE, "there is no projection to fold the convolution into"),
        ({"ins": 16}, (16, 9, 8), "input is larger than its output (1152 values a sample, not 576)"),
        ({"kernel_size": 3, "padding": 1}, SHAPE, "3 x 3 taps of 4 channels: the constant would be larger"),
    ],
    ids=["activation", "another reader", "maximum", "no projection", "larger input", "few channels"],
)
def test_what_stays_says_why(options: dict[str, object], shape: tuple[int, int, int], why: str) -> None:
    lowered = lower(branch(**options), shape, (1, 8), PASSES)  # type: ignore[arg-type]
    assert not [edit for edit in lowered.edits if edit.changed and "averages" in edit.why]
    assert any(why in edit.why for edit in lowered.edits), lowered.edits


def test_a_norm_without_a_convolution_before_it_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    lowered = lower(network, SHAPE, (1, 8), ())
    assert [edit.changed for edit in lowered.edits] == [False]
    assert "not a convolution" in lowered.edits[0].why


def test_a_second_run_changes_nothing() -> None:
    module = lower(branch(), SHAPE, (1, 8), PASSES, verify=False).module
    before = module.code
    again = [edit for name in _fx.PASSES.names() for edit in _fx.PASSES.load(name)().apply(module)]
    assert not any(edit.changed for edit in again)
    assert module.code == before


def test_a_pass_of_another_compiler_is_said_to_have_no_form_here() -> None:
    lowered = lower(branch(), SHAPE, (1, 8), ("gate_epilogue",))
    assert any(edit.where == "gate_epilogue" and not edit.changed for edit in lowered.edits)


def test_a_pass_that_changes_the_function_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: SqueezeHoist, module: fx.GraphModule) -> tuple[_fx.Edit, ...]:
        next(module.buffers()).mul_(1.001)
        return (_fx.Edit("conv", "a little more", changed=True),)

    monkeypatch.setattr(SqueezeHoist, "apply", wrong)
    with pytest.raises(SesurgeryError, match=r"SE607.*squeeze_hoist changed the outputs by"):
        lower(branch(), SHAPE, (1, 8), ("squeeze_hoist",))


def test_every_batch_of_the_range_is_taken_and_the_network_stays_as_it_was() -> None:
    network = branch()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    module = lower(network, SHAPE, (1, 8), PASSES).module
    for batch in (1, 2, 8):
        image = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
        torch.testing.assert_close(module(image), network(image), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_whole_network_keeps_its_function_with_all_its_squeezes_moved() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = {"attn_layer": "se"}
        network = ResNet(BasicBlock, (1, 1, 1, 1), 5, channels=(16, 16, 16, 16), block_args=block).eval()
    lowered = lower(network, (3, 64, 64), (1, 4), PASSES)
    assert sum("taps" in edit.why for edit in lowered.edits if edit.changed) == 4
    assert max(lowered.differences.values()) <= EXACT


@pytest.mark.parametrize(
    ("dtype", "passes", "kernel"),
    [(torch.float16, (), 1), (torch.float16, PASSES, 2), (torch.bfloat16, PASSES, 1)],
    ids=["fp16 as it is", "fp16 taps", "bf16 hoisted"],
)
def test_gates_stay_in_fp32_and_convolutions_do_not(dtype: torch.dtype, passes: tuple[str, ...], kernel: int) -> None:
    network = branch(kernel_size=kernel)
    module = lower(network, SHAPE, (1, 8), passes).module
    edits = to_half(module, dtype)
    channels_last(module)
    program = graph.export(module, SHAPE, (1, 8))
    types = [
        (tuple(node.meta["val"].shape[2:]) == (1, 1), node.meta["val"].dtype)
        for node in program.graph.nodes
        if node.target is torch.ops.aten.conv2d.default
    ]
    assert sorted(types, key=str) == sorted([(True, torch.float32)] * 2 + [(False, dtype)], key=str)
    assert edits
    image = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    found, expected = module(image), network(image)
    assert found.dtype is torch.float32
    assert (found - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()


def test_modules_that_somebody_keeps_in_fp32_stay_so_and_the_others_do_not() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    module = lower(network, SHAPE, (1, 8), ()).module
    edits = to_half(module, torch.float16, ("2*", "nothing"))
    program = graph.export(module, SHAPE, (1, 8))
    kinds = [node.meta["val"].dtype for node in program.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    assert kinds == [torch.float16, torch.float32, torch.float16]
    assert [(edit.kind, edit.where, edit.why) for edit in edits] == [
        ("asked", "2 (conv2d)", "keep_fp32 names '2*'"),
    ]
    image = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    found, expected = module(image), network(image)
    assert (found - expected).abs().max() <= 4 * torch.finfo(torch.float16).eps * expected.abs().max()


@pytest.mark.parametrize(
    ("make", "operations"),
    [
        (lambda: SE(width=3).build(8), 5),
        (lambda: timm.layers.SqueezeExcite(8, rd_channels=3), 5),
        (lambda: torchvision.ops.SqueezeExcitation(8, 3), 5),
        (lambda: LinearSE(8), 5),
        (lambda: timm.layers.EcaModule(8), 3),
    ],
    ids=["ours", "timm", "torchvision", "linear layers, expanded", "channels in a row, expanded"],
)
def test_every_operation_that_is_fp32_is_named_with_its_module_and_no_other(
    make: Callable[[], nn.Module], operations: int
) -> None:
    module = lower(branch(make), SHAPE, (1, 8), ()).module
    edits = to_half(module, torch.float16)
    found = [
        node
        for node in graph.export(module, SHAPE, (1, 8)).graph.nodes
        if node.op == "call_function"
        and getattr(node.meta["val"], "dtype", None) is torch.float32
        and node.target not in (*graph.RESHAPES, torch.ops.aten._to_copy.default)
    ]
    assert len(found) == operations
    assert sorted(edit.where.rpartition(" ")[2] for edit in edits) == sorted(
        f"({str(node.target).split('.')[1]})" for node in found
    )
    assert all(edit.where.startswith("block") and not edit.changed for edit in edits)
    (squeeze,) = [edit for edit in edits if edit.why.startswith("the squeeze of a gate: ")]
    assert all(f"in the gate of squeeze {squeeze.where.rpartition(' ')[0]!r}" in e.why for e in edits if e != squeeze)
