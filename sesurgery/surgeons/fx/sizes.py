"""Answers a network's questions about the size of its input while it is being traced.

`if height != self.size` cannot be traced, for the height is a symbol then. But it does not depend on any pixel: for the
input size that the spec names, fake tensors tell the answer without computing anything.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx._symbolic_trace import _maybe_revert_all_patches
from torch.fx.node import map_arg

from sesurgery.graph import Op, Shape
from sesurgery.surgeons.fx import ops as fx_ops

_BATCH = 2


class _Unanswerable(Exception):  # noqa: N818  (a signal within this module)
    """The answer depends on more than sizes."""


class Sizes:
    """Evaluates nodes of a graph under construction on fake tensors, each once."""

    def __init__(self, root: nn.Module, shape: Shape) -> None:
        self.root = root
        self.shape = shape
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._values: dict[fx.Node, object] = {}
        self._memo: dict[int, object] = {}

    def answer(self, node: fx.Node) -> bool | None:
        """The truth of a node's value where it follows from sizes alone; None where it looks at data or at the mode."""
        try:
            # While a network is traced, torch.fx has every module call record a node: not these.
            with _maybe_revert_all_patches(), torch.no_grad(), self._mode, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for source in self._needed(node):
                    self._values[source] = self._run(source)
        except Exception:  # whatever a module raises on a tensor without values is an answer of its own
            return None
        value = self._values[node]
        return None if isinstance(value, Tensor) else bool(value)

    def _needed(self, node: fx.Node) -> list[fx.Node]:
        """What the node depends on and is not known yet, in the graph's order."""
        wanted, queue = set(), [node]
        while queue:
            current = queue.pop()
            if current not in self._values and current not in wanted:
                wanted.add(current)
                queue += current.all_input_nodes
        return [item for item in node.graph.nodes if item in wanted]

    def _run(self, node: fx.Node) -> object:
        args, kwargs = map_arg((node.args, node.kwargs), lambda source: self._values[source])  # type: ignore[arg-type, return-value]
        if node.op == "placeholder" and node.args:
            return node.args[0]
        if node.op == "placeholder":
            like = next((part for part in self.root.parameters() if part.is_floating_point()), torch.empty(0))
            return torch.empty(_BATCH, *self.shape, dtype=like.dtype, device=like.device)
        if node.op == "get_attr":
            if str(node.target).rpartition(".")[2] == "training":
                raise _Unanswerable
            owner, _, name = str(node.target).rpartition(".")
            return getattr(self.root.get_submodule(owner), name)
        if node.op == "call_module":
            kind, _ = fx_ops.kind(node, self.root)
            kept = kind in (Op.NORM, Op.ACT, Op.PASS) and len(args) == 1 and not kwargs
            return args[0] if kept else self._copied(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if callable(node.target):
            return node.target(*args, **kwargs)
        raise _Unanswerable

    def _copied(self, path: str) -> nn.Module:
        """The module as another object: a forward may keep what it computed, and that is a fake tensor here."""
        module = self.root.get_submodule(path)
        # One memory for all copies: modules that share a part share its copy, and no tensor is copied.
        self._memo |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        with unset_fake_temporarily():
            copied: nn.Module = copy.deepcopy(module, self._memo)
        return copied
