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

_EMPTY = frozenset((OrderedDict, dict, set, list))
_ATOMS = frozenset((type(None), bool, int, float, str, type, torch.dtype, torch.device, fx.Graph))
"""Types that copies may share, as they are never written to."""
_TABLES = ("_modules", "_parameters", "_buffers")
_OWN_TABLES = frozenset(name for name, value in vars(nn.Module()).items() if type(value) in _EMPTY)
"""What every module is made with, empty."""


def duplicate(network: nn.Module) -> nn.Module:
    """An independent copy of the network."""
    modules = [*network.modules()]
    if any(isinstance(module, Dressed) for module in modules) or not _are_plain(modules):
        return copy.deepcopy(network, _known(network))
    memo: dict[int, Any] = {}
    for part in _tensors(modules, "_parameters"):
        copy.deepcopy(part, memo)
    return _copied(network, modules, memo)


def twin(network: nn.Module) -> nn.Module:
    """The same network as other objects, the parameters shared: a forward may write to its module and its buffers."""
    modules = [*network.modules()]
    memo: dict[int, Any] = {id(part): part for part in _tensors(modules, "_parameters")}
    if not _are_plain(modules):
        return copy.deepcopy(network, memo | _known(network))
    return _copied(network, modules, memo)


def _copied(network: nn.Module, modules: list[nn.Module], memo: dict[int, Any]) -> nn.Module:
    """The network copied object by object: deepcopy asks every module, dict and number how it wants to be copied.

    `memo` has the copies of its parameters.
    """
    buffers = [*{id(tensor): tensor for tensor in _tensors(modules, "_buffers")}.values()]
    # The order matters: only plain tensors have a memory address.
    if all(map(_is_whole, buffers)) and len({tensor.data_ptr() for tensor in buffers}) == len(buffers):
        memo |= {id(tensor): tensor.detach().clone() for tensor in buffers}
    memo |= {id(module): object.__new__(type(module)) for module in modules}
    for module in modules:
        state = memo[id(module)].__dict__
        state.update(vars(module))
        for name, value in vars(module).items():
            kind = type(value)
            if kind in _ATOMS:
                continue
            if kind in _EMPTY and not value:
                # Every module makes its own tables; any other container may be one that several share.
                state[name] = kind() if name in _OWN_TABLES else memo.setdefault(id(value), kind())
            else:
                state[name] = _part_of(name, value, memo)
    return cast("nn.Module", memo[id(network)])


def _tensors(modules: list[nn.Module], table: str) -> list[Tensor]:
    # Scripted modules keep theirs elsewhere, and are copied by torch.
    python = (module for module in modules if not isinstance(module, torch.jit.ScriptModule))
    return [tensor for module in python for tensor in vars(module)[table].values() if tensor is not None]


def _part_of(name: str, value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind is tuple and all(type(item) in _ATOMS for item in value):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if name in _TABLES and kind in (dict, OrderedDict):
        return kind(
            (key, memo[id(part)] if id(part) in memo else copy.deepcopy(part, memo)) for key, part in value.items()
        )
    return copy.deepcopy(value, memo)


def _are_plain(modules: list[nn.Module]) -> bool:
    return all(map(_is_plain, {type(module) for module in modules}))


def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether a module of this class is copied by its dictionary alone."""
    if issubclass(kind, Dressed):
        kind = kind.sesurgery_original
    ways = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__new__")
    own = any(getattr(kind, way, None) is not getattr(nn.Module, way, None) for way in ways)
    return not own and kind.__setstate__.__module__.startswith("torch.nn.modules.")


def _is_whole(tensor: Tensor) -> bool:
    """Whether nothing else can lie in the tensor's memory."""
    plain = type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.requires_grad
    return plain and not vars(tensor) and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


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
