"""Copies of networks, as `copy.deepcopy` makes them, at a fraction of its cost."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn

_EMPTY = (OrderedDict, dict, set, list)


def duplicate(network: nn.Module) -> nn.Module:
    """A copy that shares nothing with the network."""
    return copy.deepcopy(network, _known(network))


def twin(network: nn.Module) -> nn.Module:
    """The same network as other objects, the parameters shared: a forward may write to its module and its buffers."""
    return copy.deepcopy(network, _known(network) | {id(part): part for part in network.parameters()})


@contextlib.contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Afterwards the network has its present buffers with their present values, whatever was written meanwhile."""
    kept = [
        (module._buffers, name, tensor, tensor.clone())
        for module in network.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    yield
    with torch.no_grad():
        for table, name, tensor, value in kept:
            table[name] = tensor.copy_(value)


def _known(network: nn.Module) -> dict[int, object]:
    """Every empty container of every module with its copy: a module has a dozen, most of what copying it takes."""
    values = (value for module in network.modules() for value in vars(module).values())
    return {id(value): type(value)() for value in values if type(value) in _EMPTY and not value}
