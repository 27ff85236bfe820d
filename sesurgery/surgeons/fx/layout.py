"""Which maps of a traced network have their channels last: (batch, height, width, channels), as Swin and MambaOut do.

A block in such a place gets the map turned round, and what it gives is turned back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sesurgery.graph import ConvFacts, Op, Shape

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_PERMUTES: tuple[Any, ...] = (torch.permute, "permute")


def channels_last(
    nodes: Iterable[fx.Node],
    root: nn.Module,
    maps: Mapping[str, Shape],
    kinds: Mapping[fx.Node, tuple[Op, ConvFacts | None]],
) -> set[str]:
    """The names of the maps whose channels are last, told from what turns them, and from what reads their last axis."""
    found: set[str] = set()
    for node in nodes:
        shape = maps.get(node.name)
        if shape is None or len(shape) != 3 or kinds[node][0] in (Op.CONV, Op.POOL, Op.GLOBAL_POOL):
            continue
        axes = _permuted(node)
        if axes is None:
            last = _works_on_the_last(node, root, shape) or any(one.name in found for one in node.all_input_nodes)
        else:
            last = axes == TO_LAST
        if last:
            found.add(node.name)
    return found


def _permuted(node: fx.Node) -> tuple[int, ...] | None:
    """The axes of a permutation of four; None if it is none."""
    if node.target not in _PERMUTES:
        return None
    given = node.args[1:] or tuple(node.kwargs.values())
    axes = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    if len(axes) != 4 or not all(isinstance(axis, int) for axis in axes):
        return None
    return tuple(axis % 4 for axis in axes if isinstance(axis, int))


def _works_on_the_last(node: fx.Node, root: nn.Module, shape: Shape) -> bool:
    """Whether it is a linear layer, or torch's layer norm over the last axis alone."""
    if node.op == "call_function":
        return node.target is F.linear
    if node.op != "call_module":
        return False
    module = root.get_submodule(str(node.target))
    if isinstance(module, nn.Linear):
        return True
    # timm's LayerNorm2d is one of these too, and turns the map for itself.
    plain = isinstance(module, nn.LayerNorm) and type(module).forward is nn.LayerNorm.forward
    return plain and module.normalized_shape == (shape[-1],) and shape[-1] != shape[0]
