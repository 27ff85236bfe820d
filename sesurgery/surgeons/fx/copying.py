"""Copies of networks, as `copy.deepcopy` makes them, at a fraction of its cost."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from sesurgery.surgeons.fx.changed import Dressed

_EMPTY = (OrderedDict, dict, set, list)
_ATOMS = (type(None), bool, int, float, str, type, torch.dtype, torch.device, fx.Graph)
"""Types that copies may share, as they are never written to."""


def duplicate(network: nn.Module) -> nn.Module:
    """An independent copy of the network."""
    return copy.deepcopy(network, _known(network))


def twin(network: nn.Module) -> nn.Module:
    """The same network as other objects, the parameters shared: a forward may write to its module and its buffers."""
    memo: dict[int, Any] = {id(part): part for part in network.parameters()}
    modules, buffers = [*network.modules()], [*network.buffers()]
    if not all(map(_is_plain, modules)):
        return copy.deepcopy(network, memo | _known(network))
    # The order matters: only plain tensors have a memory address.
    if all(map(_is_whole, buffers)) and len({tensor.data_ptr() for tensor in buffers}) == len(buffers):
        memo |= {id(tensor): tensor.detach().clone() for tensor in buffers}
    # Object by object: deepcopy asks every module, dict and number how it wants to be copied.
    memo |= {id(module): object.__new__(type(module)) for module in modules}
    for module in modules:
        state = memo[id(module)].__dict__
        for name, value in vars(module).items():
            state[name] = _twin_of(name, value, memo)
    return cast("nn.Module", memo[id(network)])


def _twin_of(name: str, value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS or (kind is tuple and all(type(item) in _ATOMS for item in value)):
        return value
    if kind in _EMPTY and not value and id(value) not in memo:
        memo[id(value)] = kind()
    if id(value) in memo:
        return memo[id(value)]
    if name in ("_modules", "_parameters", "_buffers") and kind in (dict, OrderedDict):
        return kind(
            (key, memo[id(part)] if id(part) in memo else copy.deepcopy(part, memo)) for key, part in value.items()
        )
    return copy.deepcopy(value, memo)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is copied by its dictionary alone."""
    kind = type(module)
    if isinstance(module, Dressed):
        kind = module.original
    ways = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__new__")
    own = any(getattr(kind, way, None) is not getattr(nn.Module, way, None) for way in ways)
    return not own and kind.__setstate__.__module__.startswith("torch.nn.modules.")


def _is_whole(tensor: Tensor) -> bool:
    """Whether nothing else can lie in the tensor's memory."""
    plain = type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.requires_grad
    return plain and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@contextlib.contextmanager
def buffers_kept(network: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """After the block, the network has the same buffers with the same values as before; yields them with these."""
    kept = [
        (module._buffers, name, tensor, tensor.clone())
        for module in network.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    yield [(tensor, value) for _, _, tensor, value in kept]
    with torch.no_grad():
        for table, name, tensor, value in kept:
            table[name] = tensor.copy_(value)


def _known(network: nn.Module) -> dict[int, object]:
    """Every empty container of every module with its copy: a module has a dozen, most of what copying it takes."""
    values = (value for module in network.modules() for value in vars(module).values())
    return {id(value): type(value)() for value in values if type(value) in _EMPTY and not value}
