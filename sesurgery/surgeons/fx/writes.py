"""Writes in place: a value that is read after a write is the written one.

After `out += x` every name of that tensor means the sum, and after a bare `out.add_(x)` too. torch.fx records `+=` as a
sum of its own, and later readers by another name go on reading the value before it: another network. Here they are
pointed to the write.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, fx, nn

_MARK = "sesurgery_write"
# Elsewhere a module may accept `inplace` and ignore it.
_HEEDED = ("torch.nn.modules.", "timm.layers.activations")
_SIZES = ("size", "dim", "numel", "item")


class Writable(fx.Proxy):
    """A proxy that remembers which of its results were written in place.

    The sum itself stays one that makes a new tensor, as torch.fx has it: a block that reads the old one may need it
    for its gradient.
    """

    def __iadd__(self, other: Any) -> Any:
        return _marked(_written_to(self, operator.add, operator.iadd)(self, other))

    def __isub__(self, other: Any) -> Any:
        return _marked(_written_to(self, operator.sub, operator.isub)(self, other))

    def __imul__(self, other: Any) -> Any:
        return _marked(_written_to(self, operator.mul, operator.imul)(self, other))

    def __itruediv__(self, other: Any) -> Any:
        return _marked(_written_to(self, operator.truediv, operator.itruediv)(self, other))

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.tracer.sizes.kind(self.node) is not Tensor:  # type: ignore[attr-defined]
            raise TypeError(f"{type(self).__name__!r} object does not support item assignment")
        _marked(self.tracer.create_proxy("call_function", set_item, (self, index, value), {}))


def set_item(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """`tensor[index] = value`, as an operation that gives the tensor."""
    tensor[index] = value
    return tensor


def _written_to(symbol: fx.Proxy, plain: Any, in_place: Any) -> Any:
    """How to write: really in place where the tensor is the caller's, who reads it afterwards."""
    callers = getattr(symbol.tracer, "faithful", False) and symbol.node.op == "placeholder"

    def write(one: Any, other: Any) -> Any:
        if callers:
            return symbol.tracer.create_proxy("call_function", in_place, (one, other), {})
        return plain(one, other)

    return write


def _marked(result: Any) -> Any:
    if issubclass(type(result), fx.Proxy):
        result.node.meta[_MARK] = True
    return result


def reroute_reads(root: nn.Module, graph: fx.Graph) -> None:
    """Point each reading of a tensor after a write in place to that write."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    # The first write first: what it takes over, a later write of the same tensor takes over from it.
    for write in [node for node in graph.nodes if _is_write(root, node)]:
        written = write.all_input_nodes[0] if write.args and write.all_input_nodes else None
        if written is None or write.args[0] is not written or _is_number(written):
            continue
        for reader in [user for user in written.users if places[user] > places[write]]:
            reader.replace_input_with(written, write)


def _is_write(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        # A module that has no such attribute looks for it for a long time.
        inplace = vars(module).get("inplace", getattr(type(module), "inplace", False))
        return inplace is True and type(module).__module__.startswith(_HEEDED)
    if node.op == "call_method":
        return _has_writers_name(str(node.target))
    if node.op == "call_function" and callable(node.target):
        name = str(getattr(node.target, "__name__", ""))
        defined_in = str(getattr(node.target, "__module__", None) or "")
        if defined_in == "torch.nn.functional" and node.kwargs.get("inplace") is True:
            return True
        return _MARK in node.meta or (defined_in != "_operator" and _has_writers_name(name))
    return False


def _has_writers_name(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _is_number(node: fx.Node) -> bool:
    """Whether a node counts something of a tensor's: `+=` makes a new number."""
    queue, seen = [node], set()
    while queue:
        current = queue.pop()
        if current in seen or (current.op == "call_method" and current.target in _SIZES) or current.target is getattr:
            continue
        seen.add(current)
        if current.op not in ("call_function", "call_method") or not current.all_input_nodes:
            return False
        queue += current.all_input_nodes
    return True
