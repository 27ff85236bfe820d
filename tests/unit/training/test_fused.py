"""relu(x g + r) as one operation: its gradient, its registration, where it is put into a network and where not."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import sesurgery
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.spec.train import Train
from sesurgery.training.data.base import Data
from sesurgery.training.fused import fuse, scale_add_relu
from sesurgery.training.loop import FitRequest, fit

SHAPE = (2, 5, 3, 7)


def values(dtype: torch.dtype = torch.float64, layout: torch.memory_format = torch.contiguous_format) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, identity = (torch.randn(SHAPE, generator=generator).to(dtype).contiguous(memory_format=layout) for _ in "xr")
    gate = torch.rand(*SHAPE[:2], 1, 1, generator=generator).to(dtype)
    return [value.requires_grad_() for value in (x, gate, identity)]


def test_the_gradient_is_that_of_the_formula() -> None:
    assert torch.autograd.gradcheck(scale_add_relu, values())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_torch_finds_nothing_wrong_with_the_operations(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x, gate, identity = values(dtype, layout)
    torch.library.opcheck(torch.ops.sesurgery.scale_add_relu.default, (x, gate, identity))
    x, gate, identity = (value.detach() for value in (x, gate, identity))
    y = scale_add_relu(x, gate, identity)
    torch.library.opcheck(torch.ops.sesurgery.scale_add_relu_backward.default, (torch.randn_like(y), x, gate, y, dtype))


def test_types_and_layouts_come_out_as_they_went_in() -> None:
    x, _, identity = values(torch.bfloat16, torch.channels_last)
    gate = torch.rand(*SHAPE[:2], 1, 1, requires_grad=True)
    y = scale_add_relu(x, gate, identity)
    assert y.dtype is torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert [value.grad.dtype for value in (x, gate, identity)] == [torch.bfloat16, torch.float32, torch.bfloat16]


def test_other_shapes_are_left_to_torch() -> None:
    x, _, identity = values()
    gate = torch.rand(SHAPE, dtype=torch.float64)
    assert torch.equal(scale_add_relu(x, gate, identity[:1]), torch.relu(x * gate + identity[:1]))


def test_it_compiles_without_a_break() -> None:
    explained = torch._dynamo.explain(scale_add_relu)(*values(torch.float32))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def ours() -> nn.Module:
    plain = CifarResNet(depth=8, num_classes=4, in_channels=1)
    return sesurgery.insert(plain, example_input=torch.zeros(1, 1, 8, 8), reduction=4)


def theirs() -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    block = {"attn_layer": "se"}
    widths = (8, 8, 8, 8)
    return ResNet(Bottleneck, (1, 1, 1, 1), 4, 1, channels=widths, stem_width=8, block_args=block)


@pytest.mark.parametrize(("make", "places"), [(ours, 3), (theirs, 4)], ids=["ours", "timm"])
def test_a_fused_network_learns_the_same(make: Callable[[], nn.Module], places: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().train()
        image = torch.randn(3, 1, 8, 8)
    twin = copy.deepcopy(network)
    fused = fuse(network, (1, 8, 8))
    assert (len(fused.places), fused.left) == (places, ())
    for one in (fused.network, twin):
        one(image).square().sum().backward()
    # The same modules: what the fused network learned, the network has, norm statistics too.
    for (name, mine), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-5, msg=name)
    assert all(torch.equal(one, other) for one, other in zip(network.buffers(), twin.buffers(), strict=True))
    called = [node.target for node in fused.network.graph.nodes]  # type: ignore[union-attr,operator]
    assert called.count(scale_add_relu) == places


@pytest.mark.parametrize(
    ("name", "why"),
    [("mobilenetv3_small_050", "no sum follows the scaling"), ("legacy_seresnet18", "")],
)
def test_what_is_not_fused_says_why(name: str, why: str) -> None:
    fused = fuse(timm.create_model(name, num_classes=3), (3, 64, 64))
    if why:
        assert not fused.places
        assert all(reason.endswith(why) for reason in fused.left)
    else:
        assert (len(fused.places), fused.left) == (8, ())


class WritesIntoTheShortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        shortcut = x.clone()
        shortcut.add_(u * self.gate(u.mean((2, 3), keepdim=True)).sigmoid())
        return shortcut.relu()


def test_a_sum_that_writes_into_the_shortcut_stays() -> None:
    fused = fuse(WritesIntoTheShortcut(), (4, 6, 6))
    assert fused.places == ()
    assert fused.left[0].endswith("the sum writes into the shortcut, which others may read")


def test_training_with_it_gives_the_weights_that_training_without_it_gives(
    data: Data, make_recipe: Callable[..., Train], tmp_path: Path
) -> None:
    trained = []
    for fused in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = ours()
        fit(FitRequest(network, data, make_recipe(epochs=2, fused=fused), tmp_path / str(fused)))
        trained.append(network.state_dict())
    assert trained[0].keys() == trained[1].keys()
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, atol=1e-4, rtol=1e-3, msg=name)


KERNELS = """
import itertools, json, sys
import torch
from sesurgery.training.fused import kernels

def compare(shape, dtype, layout):
    generator = torch.Generator().manual_seed(0)
    def draw(*size):
        return torch.randn(*size, generator=generator).to(dtype)
    x = draw(*shape).contiguous(memory_format=layout)
    gate, identity, grad = draw(*shape[:2], 1, 1).sigmoid(), draw(*shape), draw(*shape)
    y = kernels.forward(x, gate, identity, dtype)
    found = (y, *kernels.backward(grad, x, gate, y, dtype))
    exact = [value.double().requires_grad_() for value in (x, gate, identity)]
    expected = torch.relu(exact[0] * exact[1] + exact[2])
    # The gradient of what came out: a value that rounds to zero has none.
    torch.where(y > 0, exact[0] * exact[1] + exact[2], 0.0).backward(grad.double())
    wanted = (expected, *(value.grad for value in exact))
    assert all(value.dtype is dtype for value in found)
    assert y.is_contiguous(memory_format=layout) and found[1].is_contiguous(memory_format=layout)
    return [float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-9)) for a, b in zip(found, wanted)]

shapes = ((2, 5, 3, 7), (1, 130, 7, 7), (3, 1, 1, 1), (2, 3, 40, 40))
types = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
layouts = (torch.contiguous_format, torch.channels_last)
places = tuple(itertools.product(shapes, layouts))
worst = {str(dtype): max(max(compare(shape, dtype, layout)) for shape, layout in places) for dtype in types}
nan = torch.tensor([float("nan"), -1.0, 2.0]).reshape(1, 3, 1, 1)
ones = torch.ones(1, 3, 1, 1)
worst["nan"] = kernels.forward(nan, ones, ones * 0, torch.float32).flatten().tolist()
empty = torch.empty(0, 3, 2, 2)
worst["empty"] = [list(v.shape) for v in kernels.backward(empty, empty, torch.empty(0, 3, 1, 1), empty, torch.float32)]
json.dump(worst, sys.stdout)
"""
TOLERANCE = {"torch.float64": 1e-14, "torch.float32": 1e-6, "torch.float16": 2.0**-10, "torch.bfloat16": 2.0**-7}
"""A unit in the last place: the interpreter cuts bf16 off where a GPU rounds."""


def test_the_kernels_compute_the_formula_and_its_gradient_at_odd_sizes_in_every_type_and_layout() -> None:
    pytest.importorskip("triton")
    # Triton decides when it is imported whether it interprets: hence a process of its own.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KERNELS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for dtype, allowed in TOLERANCE.items():
        assert 0 < found[dtype] <= allowed, (dtype, found[dtype])
    # As relu does it: NaN is not hidden.
    assert found["nan"][0] != found["nan"][0]
    assert found["nan"][1:] == [0.0, 2.0]
    assert found["empty"] == [[0, 3, 2, 2], [0, 3, 1, 1], [0, 3, 2, 2]]
