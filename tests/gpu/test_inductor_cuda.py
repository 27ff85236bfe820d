"""The backend inductor and the fused operation on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sesurgery
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.inductor import Inductor
from sesurgery.lowering.fx import lower
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.spec.engines import Precision
from sesurgery.training.fused import fuse, scale_add_relu

BACKEND = Inductor(target="cuda")
REASON = BACKEND.probe().builds
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
SHAPE = (3, 32, 32)
# Relative to the largest output; TF32 is off.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
EPSILONS = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sesurgery.insert(CifarResNet(depth=8), example_input=torch.zeros(1, *SHAPE), reduction=4).eval()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_package_answers_as_the_network_does_at_every_batch(precision: Precision, tmp_path: Path) -> None:
    model = network()
    lowered = lower(model, SHAPE, (1, 16), ("squeeze_hoist", "squeeze_hoist_spatial")).module
    options = BuildOptions(precision=precision, batch=BatchRange(1, 4, 16))
    report = BACKEND.build_network(lowered, SHAPE, tmp_path / "x.pt2", options)
    assert report.convolutions[precision]
    with BACKEND.load(tmp_path / "x.pt2") as runner:
        for batch in (1, 4, 7, 16):
            images = np.random.default_rng(batch).normal(size=(batch, *SHAPE)).astype(np.float32)
            found = runner.infer({"input": images})["logits"]
            with torch.inference_mode():
                expected = model(torch.from_numpy(images)).numpy()
            assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()
        samples = runner.time({"input": images}, 50)
    assert (samples > 0).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", list(EPSILONS), ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 3, 7), (1, 130, 7, 7), (3, 1, 1, 1), (4, 256, 56, 56)], ids=str)
def test_the_kernels_compute_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    pytest.importorskip("triton")
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, device="cuda", generator=generator).to(dtype)

    x = draw(*shape).contiguous(memory_format=layout).requires_grad_()
    gate = draw(*shape[:2], 1, 1).sigmoid().requires_grad_()
    identity, grad = draw(*shape).requires_grad_(), draw(*shape)
    y = scale_add_relu(x, gate, identity)
    y.backward(grad)
    exact = [value.detach().double().requires_grad_() for value in (x, gate, identity)]
    expected = torch.relu(exact[0] * exact[1] + exact[2])
    torch.where(y.detach() > 0, exact[0] * exact[1] + exact[2], 0.0).backward(grad.double())
    assert y.is_contiguous(memory_format=layout)
    for found, wanted in zip(
        (y, x.grad, gate.grad, identity.grad), (expected, *(value.grad for value in exact)), strict=True
    ):
        assert (found.double() - wanted).abs().max() <= EPSILONS[dtype] * wanted.abs().max()


def test_two_runs_give_the_same_bits() -> None:
    x, identity = (torch.randn(8, 64, 28, 28, device="cuda", requires_grad=True) for _ in "xr")
    gate = torch.rand(8, 64, 1, 1, device="cuda", requires_grad=True)
    first, second = (torch.autograd.grad(scale_add_relu(x, gate, identity).sum(), gate)[0] for _ in "ab")
    assert torch.equal(first, second)


def test_torch_finds_nothing_wrong_with_the_operation() -> None:
    x, identity = (torch.randn(2, 5, 3, 7, device="cuda", requires_grad=True) for _ in "xr")
    gate = torch.rand(2, 5, 1, 1, device="cuda", requires_grad=True)
    torch.library.opcheck(torch.ops.sesurgery.scale_add_relu.default, (x, gate, identity))


def test_a_network_learns_the_same_with_it() -> None:
    model = network().cuda().train()
    image = torch.randn(4, *SHAPE, device="cuda")
    gradients = []
    for one in (model, fuse(model, SHAPE).network):
        one.zero_grad()
        one(image).square().sum().backward()
        gradients.append([value.grad.clone() for value in model.parameters()])
    for mine, other in zip(*gradients, strict=True):
        assert (mine - other).abs().max() <= 1e-3 * other.abs().max().clamp_min(1e-6)
