"""What a torch.fx node is in the neutral graph: its kind, and a convolution's geometry."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sesurgery.graph import ConvFacts, Op

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.MaxPool3d, nn.AvgPool3d)
_ADAPTIVE = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool3d, F.adaptive_max_pool3d)
_PASSES = (nn.Identity, nn.modules.dropout._DropoutNd)
_NOT_ELEMENTWISE = ("Softmax", "Softmax2d", "LogSoftmax", "Softmin", "MultiheadAttention")

_FUNCTIONS: dict[Callable[..., Any], Op] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add), Op.ADD),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), Op.MUL),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), Op.CONCAT),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.permute), Op.RESHAPE),
    **dict.fromkeys((F.max_pool2d, F.avg_pool2d, torch.max_pool2d, F.max_pool3d, F.avg_pool3d), Op.POOL),
    **dict.fromkeys((F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm), Op.NORM),
    **dict.fromkeys(
        (
            F.relu, F.relu_, torch.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish,
            F.hardswish, F.hardsigmoid, F.hardtanh, F.prelu, F.softplus, F.sigmoid, torch.sigmoid, torch.tanh, F.tanh,
        ),
        Op.ACT,
    ),
    **dict.fromkeys((F.dropout, F.dropout2d, F.alpha_dropout, F.feature_alpha_dropout), Op.PASS),
    F.linear: Op.LINEAR,
}  # fmt: skip
_METHODS: dict[str, Op] = {
    **dict.fromkeys(("add", "add_"), Op.ADD),
    **dict.fromkeys(("mul", "mul_"), Op.MUL),
    **dict.fromkeys(("view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "contiguous"), Op.RESHAPE),
    **dict.fromkeys(("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_"), Op.ACT),
}


def kind(node: fx.Node, root: nn.Module) -> tuple[Op, ConvFacts | None]:
    """The node's kind, with the geometry where it is a convolution of maps held by a module."""
    if node.op in ("placeholder", "output"):
        return (Op.INPUT if node.op == "placeholder" else Op.OUTPUT), None
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return _module(module), _facts(module)
    if node.op == "call_method":
        if node.target in ("mean", "amax"):
            return _over_the_map(node), None
        return _METHODS.get(str(node.target), Op.OTHER), None
    if node.op == "call_function":
        if node.target in (torch.mean, torch.amax):
            return _over_the_map(node), None
        if node.target in _ADAPTIVE:
            size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
            return (Op.GLOBAL_POOL if _is_one(size) else Op.POOL), None
        return _FUNCTIONS.get(node.target, Op.OTHER), None  # type: ignore[arg-type]
    return Op.OTHER, None


def is_elementwise(module: nn.Module) -> bool:
    """Whether a module without values of its own is an activation, by what it does: each number follows from one."""
    if any(True for _ in (*module.parameters(), *module.buffers())):
        return False
    x = torch.linspace(-4, 4, 48).view(2, 2, 3, 4)
    try:
        copied = copy.deepcopy(module).eval()
        with torch.no_grad():
            y = copied(x.clone())
            parts = [(copied(x.flip(0, 1, 2, 3)).flip(0, 1, 2, 3), y)]
            parts += [(copied(x.narrow(axis, 0, 1).clone()), y.narrow(axis, 0, 1)) for axis in range(4)]
            return all(one.shape == other.shape and torch.allclose(one, other) for one, other in parts)
    except Exception:  # what fails on a small map is no activation
        return False


def is_frozen_norm(kind: type[nn.Module]) -> bool:
    """Whether it is torchvision's norm of fixed statistics, by its name: importing torchvision takes seconds."""
    names = [base.__name__ for base in kind.__mro__]
    if "FrozenBatchNorm2d" not in names:
        return False
    return kind.__mro__[names.index("FrozenBatchNorm2d")].__module__ == "torchvision.ops.misc"


def _module(module: nn.Module) -> Op:
    if isinstance(module, _CONVOLUTIONS):
        return Op.CONV
    if isinstance(module, nn.Linear):
        return Op.LINEAR
    if isinstance(module, _NORMS) or is_frozen_norm(type(module)):
        return Op.NORM
    if isinstance(module, _GLOBAL_POOLS):
        return Op.GLOBAL_POOL if _is_one(module.output_size) else Op.POOL
    if isinstance(module, _POOLS):
        return Op.POOL
    if isinstance(module, _PASSES) or type(module).__name__ in ("DropPath", "StochasticDepth", "DropBlock2d"):
        return Op.PASS
    if isinstance(module, nn.Flatten):
        return Op.RESHAPE
    defined_in, name = type(module).__module__, type(module).__name__
    if defined_in in ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me"):
        return Op.OTHER if name in _NOT_ELEMENTWISE else Op.ACT
    return Op.OTHER


def _facts(module: nn.Module) -> ConvFacts | None:
    if not isinstance(module, _CONVOLUTIONS):
        return None
    axes = 3 if isinstance(module, nn.Conv3d) else 2
    kernel, dilation = _each(module.kernel_size, axes), _each(module.dilation, axes)
    padding: Any = module.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        padding = tuple(step * (size - 1) // 2 for step, size in zip(dilation, kernel, strict=True))
    return ConvFacts(
        kernel=kernel,
        stride=_each(module.stride, axes),
        padding=_each(padding, axes),
        dilation=dilation,
        groups=module.groups,
        in_channels=module.in_channels,
        out_channels=module.out_channels,
    )


def _over_the_map(node: fx.Node) -> Op:
    """A mean or a maximum over all but the first two dimensions, of four or of five, is a global pool."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if not isinstance(dims, tuple | list):
        return Op.OTHER
    over = {dim for dim in dims if isinstance(dim, int)}
    return Op.GLOBAL_POOL if any({dim % size for dim in over} == {*range(2, size)} for size in (4, 5)) else Op.OTHER


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (int(value),) * axes if isinstance(value, int) else tuple(map(int, value))


def _is_one(size: Any) -> bool:
    return size in (1, (1,), (1, 1), [1, 1], (1, 1, 1), [1, 1, 1])
