"""What the values of a traced network are, as far as that follows from the input's size: asked while it is traced.

`if height != self.size` cannot be traced, for the height is a symbol then. But it does not depend on any pixel: for the
input size that the spec names, fake tensors tell the answer without computing anything. The same tells whether a value
is a tensor, how many parts a list has, and what number a size is. Every question is asked in two settings with
different batch and mode; where they disagree, there is no answer.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx._symbolic_trace import _maybe_revert_all_patches
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.fx.node import map_aggregate, map_arg

from sesurgery.accounting import casts_forgotten
from sesurgery.graph import Op
from sesurgery.surgeons.fx import draws
from sesurgery.surgeons.fx import ops as fx_ops


class _Unanswerable(Exception):  # noqa: N818  (a signal within this module)
    """The answer depends on more than sizes."""


@dataclass(eq=False)
class _World:
    training: bool
    values: dict[fx.Node, object] = field(default_factory=dict)


class Sizes:
    """Evaluates nodes of a graph under construction on fake tensors, each once a world."""

    def __init__(self, root: nn.Module, outer: Sizes | None = None) -> None:
        self.root = root
        self._outer = outer
        # Tensors of two fake modes do not mix.
        self._mode: FakeTensorMode = outer._mode if outer else FakeTensorMode(allow_non_fake_inputs=True)
        self._worlds = (_World(training=False), _World(training=True))
        self._memo: dict[int, object] = {}
        self._given: dict[fx.Node, tuple[object, object]] = {}
        self._unknown: set[fx.Node] = set()
        self.asked = False
        """Whether anything was asked: what is traced may depend on the answer."""

    def give(self, node: fx.Node, two: object, three: object) -> None:
        """Let a placeholder have these values in the two worlds; nodes of the graph around it stand for theirs."""
        self._given[node] = (two, three)

    def pair(self, node: fx.Node) -> tuple[object, object] | None:
        """The node's value in either world; None if it looks at data."""
        self.asked = True
        if node in self._unknown:
            return None
        try:
            # While a network is traced, torch.fx has every module call record a node: not these.
            with _as_untraced(), torch.no_grad(), self._mode, casts_forgotten(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for world in self._worlds:
                    for source in _needed(node, world):
                        world.values[source] = self._run(source, world)
        except Exception:  # whatever a module raises on a tensor without values is an answer of its own
            self._unknown.add(node)
            return None
        first, second = (world.values[node] for world in self._worlds)
        return first, second

    def kind(self, node: fx.Node) -> type | None:
        """The class of the node's value, the plain tensor's for a fake one."""
        found = self.pair(node)
        kinds = {Tensor if isinstance(value, Tensor) else type(value) for value in found or ()}
        return kinds.pop() if len(kinds) == 1 else None

    def number(self, node: fx.Node) -> bool | int | float | None:
        """The node's value where it is a number that follows from the size of a sample alone."""
        found = self.pair(node)
        if found is None or not isinstance(found[0], bool | int | float) or found[0] != found[1]:
            return None
        return found[0]

    def length(self, node: fx.Node) -> int | None:
        """How many items the node's value has, where that follows from the size of a sample alone."""
        try:
            lengths = {len(value) for value in self.pair(node) or ()}  # type: ignore[arg-type]
        except TypeError:
            return None
        return lengths.pop() if len(lengths) == 1 else None

    def answer(self, node: fx.Node) -> bool | None:
        """The truth of a node's value where it follows from sizes alone; None if it looks at data or at the mode."""
        found = self.pair(node)
        if found is None or any(isinstance(value, Tensor) for value in found):
            return None
        first, second = map(bool, found)
        return first if first == second else None

    def _run(self, node: fx.Node, world: _World) -> object:
        args, kwargs = _mutable(map_arg((node.args, node.kwargs), world.values.__getitem__))  # type: ignore[arg-type]
        if node.op == "placeholder":
            number = self._worlds.index(world)
            given: Any = self._given[node][number]
            return map_aggregate(given, lambda item: cast("Any", self._around(item, number)))
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            return world.training if name == "training" else getattr(self.root.get_submodule(owner), name)
        if node.op == "call_module":
            kind, _ = fx_ops.kind(node, self.root)
            kept = kind in (Op.NORM, Op.ACT, Op.PASS) and len(args) == 1 and not kwargs
            return args[0] if kept else self._copied(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function" and callable(node.target) and not draws.is_plain_draw(node.target):
            return node.target(*args, **kwargs)
        raise _Unanswerable

    def _around(self, item: object, number: int) -> object:
        """What the graph around this one knows of a value that it gives."""
        if not isinstance(item, fx.Node):
            return item
        found = self._outer.pair(item) if self._outer else None
        if found is None:
            raise _Unanswerable
        return found[number]

    def _copied(self, path: str) -> nn.Module:
        """The module as another object: a forward may keep what it computed, and that is a fake tensor here."""
        module = self.root.get_submodule(path)
        # One memory for all copies: modules that share a part share its copy, and no tensor is copied.
        self._memo |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        with unset_fake_temporarily():
            copied: nn.Module = copy.deepcopy(module, self._memo)
        return copied


@contextlib.contextmanager
def _as_untraced() -> Iterator[None]:
    """torch as it is where nothing is traced; put back once, at the end of the outermost of several."""
    if draws.are_paused():
        yield
        return
    with _maybe_revert_all_patches(), draws.paused():
        yield


def _mutable(value: Any) -> Any:
    """Lists and dictionaries of a node's arguments as the code that runs makes them: a module may add to those."""
    if isinstance(value, immutable_list):
        return [_mutable(item) for item in value]
    if isinstance(value, immutable_dict):
        return {key: _mutable(item) for key, item in value.items()}
    return tuple(map(_mutable, value)) if type(value) is tuple else value


def _needed(node: fx.Node, world: _World) -> list[fx.Node]:
    """What the node depends on and is not known yet, in the graph's order."""
    wanted, queue = set(), [node]
    while queue:
        current = queue.pop()
        if current not in world.values and current not in wanted:
            wanted.add(current)
            queue += current.all_input_nodes
    return [item for item in node.graph.nodes if item in wanted] if wanted else []
