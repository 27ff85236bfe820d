"""How a network is to be traced, and what tracing gives."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx.sizes import Sizes


@dataclass(frozen=True)
class Call:
    """One call of a module: its key among all, its number among the module's, and the nodes it was given and gave."""

    key: str
    path: str
    number: int
    args: Any
    kwargs: Any
    result: Any


@dataclass(frozen=True)
class Trace:
    """A network's graph over its own modules, and the leaves that were forced."""

    root: nn.Module
    graph: fx.Graph
    leaves: tuple[Leaf, ...]
    training_graph: fx.Graph | None = None
    """What runs in training, where a forward branches on its mode; `graph` is then for evaluation."""
    calls: tuple[Call, ...] = ()
    sizes: Sizes | None = None
    branching: frozenset[str] = frozenset()
    """Modules that branch on their mode and are drawn as they are in evaluation."""
    read: dict[str, Any] = field(default_factory=dict)
    """The root's plain attributes that its forward reads, with their values."""
    constants: tuple[str, ...] = ()
    """Attributes of the root for tensors that its forward makes, and the graph holds."""


@dataclass(frozen=True)
class Way:
    """How a network is to be traced.

    `around` knows the values that are given as nodes. `open` names the modules that are traced through, all of them
    where it is None; those of `called` are leaves. `branches_as_in_eval` draws what branches on its mode as in
    evaluation. `guarded` is for a graph that stands in for the forward.
    """

    open: Collection[str] | None = None
    branches_as_in_eval: bool = False
    guarded: bool = False
    around: Sizes | None = None
    called: Collection[str] = ()
