"""The Triton kernels of `operation.py`: one forward, one backward, for either memory layout.

A map is taken as [N, P, C] with P = H W positions and two strides, one of which is 1: NCHW and channels-last differ in
nothing else. A program does one tile of positions by channels of one sample. Backward, the gradient of the gate is a
sum over positions: each program writes its share, and the shares are added afterwards in a fixed order, so that two
runs give the same bits, which atomic additions would not.

`TRITON_INTERPRET=1` runs them on the CPU, tile by tile, without a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sesurgery.training.fused.layout import layout_of

TILE = 2048
"""Values a program and tensor: 16 to 32 bytes a thread at 4 warps."""


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    x_ptr, gate_ptr, identity_ptr, y_ptr, positions, channels, stride_p, stride_c,
    block_p: tl.constexpr, block_c: tl.constexpr, accumulator: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * block_p + tl.arange(0, block_p)
    c = tl.program_id(1) * block_c + tl.arange(0, block_c)
    inside = (p < positions)[:, None] & (c < channels)[None, :]
    place = sample * positions * channels + p[:, None] * stride_p + c[None, :] * stride_c
    gate = tl.load(gate_ptr + sample * channels + c, mask=c < channels, other=0.0).to(accumulator)
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(accumulator)
    identity = tl.load(identity_ptr + place, mask=inside, other=0.0).to(accumulator)
    y = x * gate[None, :] + identity
    # Not maximum(y, 0), which would hide a NaN.
    y = tl.where(y <= 0.0, 0.0, y)
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]
    grad_ptr, x_ptr, gate_ptr, y_ptr, dx_ptr, shares_ptr, didentity_ptr, positions, channels, stride_p, stride_c,
    block_p: tl.constexpr, block_c: tl.constexpr, accumulator: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * block_p + tl.arange(0, block_p)
    c = tl.program_id(1) * block_c + tl.arange(0, block_c)
    inside = (p < positions)[:, None] & (c < channels)[None, :]
    place = sample * positions * channels + p[:, None] * stride_p + c[None, :] * stride_c
    gate = tl.load(gate_ptr + sample * channels + c, mask=c < channels, other=0.0).to(accumulator)
    grad = tl.load(grad_ptr + place, mask=inside, other=0.0).to(accumulator)
    y = tl.load(y_ptr + place, mask=inside, other=0.0)
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(accumulator)
    passed = tl.where(y <= 0.0, 0.0, grad)
    tl.store(dx_ptr + place, (passed * gate[None, :]).to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(didentity_ptr + place, passed.to(didentity_ptr.dtype.element_ty), mask=inside)
    share = (sample * tl.num_programs(0) + tl.program_id(0)) * channels + c
    tl.store(shares_ptr + share, tl.sum(passed * x, axis=0), mask=c < channels)


def forward(x: Tensor, gate: Tensor, identity: Tensor, dtype: torch.dtype) -> Tensor:
    """relu(x g + r) in x's layout and the type asked for."""
    layout = layout_of(x)
    x, identity = (value.contiguous(memory_format=layout) for value in (x, identity))
    y = torch.empty_like(x, dtype=dtype, memory_format=layout)
    if y.numel():
        grid, sizes, tile = _tiles(x, layout)
        _forward_kernel[grid](
            x, gate.contiguous(), identity, y, *sizes, *tile, accumulator=_accumulator(x, gate, identity)
        )
    return y


def backward(grad: Tensor, x: Tensor, gate: Tensor, y: Tensor, identity_dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The gradients of x, of the gate and of the identity."""
    layout = layout_of(x)
    x, y, grad = (value.contiguous(memory_format=layout) for value in (x, y, grad))
    dx = torch.empty_like(x)
    didentity = torch.empty_like(x, dtype=identity_dtype)
    if not x.numel():
        return dx, torch.zeros_like(gate), didentity
    grid, sizes, tile = _tiles(x, layout)
    accumulator = _accumulator(x, gate, y)
    dtype = torch.float64 if accumulator is tl.float64 else torch.float32
    shares = torch.empty(x.shape[0], grid[0], x.shape[1], dtype=dtype, device=x.device)
    _backward_kernel[grid](grad, x, gate.contiguous(), y, dx, shares, didentity, *sizes, *tile, accumulator=accumulator)
    return dx, shares.sum(1).to(gate.dtype)[:, :, None, None], didentity


def _tiles(
    x: Tensor, layout: torch.memory_format
) -> tuple[tuple[int, int, int], tuple[int, int, int, int], tuple[int, int]]:
    """The grid, the sizes and strides, and the tile, long in the direction in which memory is."""
    samples, channels, height, width = x.shape
    positions = height * width
    last = layout is torch.channels_last
    inner = min(triton.next_power_of_2(channels if last else positions), 128 if last else 1024)
    outer = min(triton.next_power_of_2(positions if last else channels), max(1, TILE // inner))
    tile = (outer, inner) if last else (inner, outer)
    strides = (channels, 1) if last else (1, positions)
    grid = (triton.cdiv(positions, tile[0]), triton.cdiv(channels, tile[1]), samples)
    return grid, (positions, channels, *strides), tile


def _accumulator(*tensors: Tensor) -> tl.dtype:
    return tl.float64 if any(tensor.dtype is torch.float64 for tensor in tensors) else tl.float32
