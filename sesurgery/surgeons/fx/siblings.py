"""Modules that are traced to one graph: the units of a stage mostly are, and tracing one of them is enough.

A forward is traced with its parameters as symbols, so what it does follows from its code, from the plain attributes of
the module and of the parts that it may ask (a stride, a probability, a switch), from which of its parts there are, and
from how it is called. Where all of these are equal, so are the graphs. That is not taken on trust: every graph is
compared with the forward of its own module before it runs in its place.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from sesurgery.surgeons.fx.traced import Trace

_ATOMS = frozenset((type(None), bool, int, float, str, bytes, type, torch.dtype, torch.device))
_TABLES = frozenset(("_parameters", "_buffers", "_modules"))


def likeness(module: nn.Module, opened: Collection[str], args: Any, kwargs: Any) -> Hashable | None:
    """Equal for modules whose forwards are traced to one graph when called so; None where that is not known.

    `opened` are the parts that are traced through. What they keep in buffers may decide, so they must keep nothing.
    """
    traced = (module, *(module.get_submodule(path) for path in opened))
    if any(part._buffers for part in traced):
        return None
    parts = tuple((path, type(part), *map(_entry, vars(part).items())) for path, part in module.named_modules())
    given = (_token(args), _token(kwargs))
    return None if any(None in part[2:] for part in parts) or None in given else (frozenset(opened), parts, given)


def may_be_copied(trace: Trace) -> bool:
    """Whether nothing in the graph depends on the sizes of the inputs, on the mode, or on what the forward made."""
    alone = trace.training_graph is None and not (trace.leaves or trace.constants or trace.branching)
    return alone and trace.sizes is not None and not trace.sizes.asked


def copied(trace: Trace) -> Trace:
    """The trace with a graph of its own."""
    return replace(trace, graph=copy.deepcopy(trace.graph), read=dict(trace.read))


def _entry(item: tuple[str, Any]) -> Hashable | None:
    """One attribute of a module, or None where modules that have one are not to be compared."""
    name, value = item
    if name in _TABLES:
        return (name, *((key, _part(part)) for key, part in value.items()))
    if type(value) in (dict, OrderedDict, set, list) and not value:
        return (name, type(value))
    token = _token(value)
    return None if token is None else (name, token)


def _part(part: Tensor | nn.Module | None) -> Hashable:
    if isinstance(part, Tensor):
        return (type(part), tuple(part.shape), part.dtype, part.device, part.requires_grad)
    return part is None


def _token(value: Any) -> Hashable | None:
    """A value such that equal ones are the same to any code; None for one that can change or be told apart."""
    kind = type(value)
    if kind in _ATOMS:
        # 1, 1.0 and True are equal, and not the same.
        return (kind, value)
    if kind is fx.Node:
        return (kind,)
    if issubclass(kind, tuple | list):
        return _all(kind, value)
    if issubclass(kind, dict):
        return _all(kind, (item for pair in value.items() for item in pair))
    if callable(value) and not isinstance(value, nn.Module) and getattr(value, "__self__", None) is None:
        return (kind, id(value))
    return None


def _all(kind: type, values: Iterable[Any]) -> Hashable | None:
    tokens = tuple(map(_token, values))
    return None if None in tokens else (kind, tokens)
