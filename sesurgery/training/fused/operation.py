"""relu(x g + r): a map scaled by its gate, the residual sum and its activation, as one operation with its gradient.

    y  = relu(x g + r)                x, r, y [N, C, H, W], g [N, C, 1, 1]
    d  = dy where y > 0, else 0
    dx = d g,   dr = d,   dg = sum over H, W of d x

Written as three operations, a GPU reads or writes eight maps forward (x, t; t, r, s; s, y and s again for what autograd
keeps) and more backward; as one it is three forward (x, r in, y out) and five backward (dy, y, x in, dx, dr out), and
the sum over the map is taken on the way. What is kept for the gradient is x, g and y, as before.

On CUDA with triton it is a kernel each way (`kernels.py`), which computes in fp32 and rounds once. Anywhere else it is
the same formula in torch's own operations. The gradient has no gradient of its own.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from sesurgery.training.fused.layout import layout_of

FORWARD, BACKWARD = "sesurgery::scale_add_relu", "sesurgery::scale_add_relu_backward"


def scale_add_relu(x: Tensor, gate: Tensor, identity: Tensor) -> Tensor:
    """relu(x * gate + identity); shapes other than [N, C, H, W], [N, C, 1, 1], [N, C, H, W] are left to torch."""
    if x.dim() != 4 or gate.shape != (*x.shape[:2], 1, 1) or identity.shape != x.shape:
        return torch.relu(x * gate + identity)
    result: Tensor = torch.ops.sesurgery.scale_add_relu(x, gate, identity)
    return result


def _dtype(x: Tensor, gate: Tensor, identity: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(x.dtype, gate.dtype), identity.dtype)


@torch.library.custom_op(FORWARD, mutates_args=())
def _forward(x: Tensor, gate: Tensor, identity: Tensor) -> Tensor:
    return torch.relu(x * gate + identity).contiguous(memory_format=layout_of(x))


@_forward.register_fake
def _forward_shape(x: Tensor, gate: Tensor, identity: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=_dtype(x, gate, identity), memory_format=layout_of(x))


@torch.library.custom_op(BACKWARD, mutates_args=())
def _backward(grad: Tensor, x: Tensor, gate: Tensor, y: Tensor, identity_dtype: torch.dtype) -> list[Tensor]:
    # As torch's own relu does it: where y is NaN the gradient passes.
    passed = torch.where(y <= 0, 0, grad)
    return [
        (passed * gate).to(x.dtype).contiguous(memory_format=layout_of(x)),
        (passed * x).sum((2, 3), keepdim=True).to(gate.dtype),
        passed.to(identity_dtype).contiguous(memory_format=layout_of(x)),
    ]


@_backward.register_fake
def _backward_shape(grad: Tensor, x: Tensor, gate: Tensor, y: Tensor, identity_dtype: torch.dtype) -> list[Tensor]:
    return [
        torch.empty_like(x, memory_format=layout_of(x)),
        torch.empty_like(gate, memory_format=torch.contiguous_format),
        torch.empty_like(x, dtype=identity_dtype, memory_format=layout_of(x)),
    ]


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, gate, identity = inputs
    ctx.save_for_backward(x, gate, output)
    ctx.identity_dtype = identity.dtype


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    x, gate, y = ctx.saved_tensors
    return tuple(torch.ops.sesurgery.scale_add_relu_backward(grad, x, gate, y, ctx.identity_dtype))


_forward.register_autograd(_differentiate, setup_context=_keep)

if importlib.util.find_spec("triton") is not None:

    @_forward.register_kernel("cuda")
    def _forward_cuda(x: Tensor, gate: Tensor, identity: Tensor) -> Tensor:
        from sesurgery.training.fused import kernels

        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device(x.device):
            return kernels.forward(x, gate, identity, _dtype(x, gate, identity))

    @_backward.register_kernel("cuda")
    def _backward_cuda(grad: Tensor, x: Tensor, gate: Tensor, y: Tensor, identity_dtype: torch.dtype) -> list[Tensor]:
        from sesurgery.training.fused import kernels

        with torch.cuda.device(x.device):
            return list(kernels.backward(grad, x, gate, y, identity_dtype))
