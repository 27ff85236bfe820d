"""Symbolic tracing that does not give up: what cannot be traced becomes a leaf, and train() / eval() keep working.

Two things usually go wrong when torch.fx traces a real network. Control flow on a value raises; where the value follows
from the input's size it is decided for that size, otherwise the innermost module being traced is made a leaf and
tracing starts again. And `self.training` is read once, so that dropout is frozen into the mode of tracing; here it is
traced as an attribute of the module, read anew whenever the traced network runs. A forward that *branches* on
`self.training` cannot be traced and becomes a leaf like any other control flow. Where the network's own forward
branches, it is traced once for either mode.

What the network's forward takes beside the image and decides by (`mask=None`, `features=False`) keeps its default: a
graph holds one of the two ways, and `None` as a symbol would be taken for a value that was given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torchvision
from torch import fx, nn

from sesurgery.diagnostics import fail
from sesurgery.graph import Shape
from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx.modes import TwoFaced
from sesurgery.surgeons.fx.sizes import Sizes
from sesurgery.surgeons.fx.writes import Writable, settle

# Whatever derives from these is one operation to planning, however its forward is written.
_PRIMITIVES: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    torchvision.ops.FrozenBatchNorm2d,
)
_STACK = "nn_module_stack"
_ACTIVATION_MODULES = ("timm.layers.activations", "timm.layers.activations_me")


@dataclass(frozen=True)
class Trace:
    """A network's graph over its own modules, and the leaves that were forced."""

    root: nn.Module
    graph: fx.Graph
    leaves: tuple[Leaf, ...]
    training_graph: fx.Graph | None = None
    """What runs in training, where the network's own forward branches on its mode; `graph` is then for evaluation."""


def trace(model: nn.Module, shape: Shape) -> Trace:
    """Trace a network for inputs of `shape` (channels, height, width); the batch stays open.

    Raises SE403 where its own forward cannot be traced even with every part of it a leaf.
    """
    leaves: dict[str, str] = {}
    training_graph = None
    if isinstance(model, TwoFaced):
        graph, training_graph = (_graph(face, leaves, None, shape) for face in model.faces)
    else:
        try:
            graph = _graph(model, leaves, None, shape)
        except _BranchesOnMode:
            graph, training_graph = _graph(model, leaves, False, shape), _graph(model, leaves, True, shape)
    return Trace(model, graph, tuple(Leaf(path, why) for path, why in leaves.items()), training_graph)


class _BranchesOnMode(Exception):  # noqa: N818  (a signal between two functions of this module)
    """The root's forward uses `self.training` as something that a graph cannot hold."""


def _graph(model: nn.Module, leaves: dict[str, str], mode: bool | None, shape: Shape) -> fx.Graph:
    """Trace until it works, adding leaves; `mode` is what `self.training` is to the root's own forward."""
    while True:
        tracer = _Tracer(leaves, mode, Sizes(model, shape))
        try:
            with _training_as_attribute(tracer):
                graph = tracer.trace(model)
        except Exception as error:
            culprit, why = tracer.culprit, _reason(error)
            if not culprit and tracer.root_read_mode and mode is None:
                raise _BranchesOnMode from error
            if not culprit or culprit in leaves:
                name = type(model).__name__
                text = f"{name}.forward cannot be traced: {why}"
                raise fail("SE403", text, "move what depends on the data into a module of its own") from error
            leaves[culprit] = why
        else:
            if isinstance(model, fx.GraphModule):
                _restore_scopes(model.graph, graph)
            settle(model, graph)
            return graph


def _restore_scopes(before: fx.Graph, after: fx.Graph) -> None:
    """Give the operations of a traced graph module the scopes they had when the original network was traced."""
    known, anew = _own_operations(before), [node for node in _own_operations(after) if not node.meta.get(_STACK)]
    if [node.target for node in known] == [node.target for node in anew]:
        for old, new in zip(known, anew, strict=True):
            new.meta[_STACK] = old.meta.get(_STACK, {})


def _own_operations(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op in ("call_function", "call_method")]


class _Tracer(fx.Tracer):
    """Knows which module's forward it is in, and takes some modules as leaves."""

    def __init__(self, leaves: Mapping[str, str], mode: bool | None, sizes: Sizes) -> None:
        super().__init__()
        self.leaves = leaves
        self.mode = mode
        self.sizes = sizes
        self.root_read_mode = False
        self.stack: list[tuple[str, nn.Module]] = []
        self.culprit: str | None = None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Writable(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A decision that follows from the input's size is taken for this size; any other cannot be traced."""
        answer = self.sizes.answer(obj.node)
        return super().to_bool(obj) if answer is None else answer

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """The root's arguments as symbols, but those that decide by default."""
        forward, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        return forward, [_decided(arg) if isinstance(arg, fx.Proxy) else arg for arg in args]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            module_qualified_name in self.leaves
            or isinstance(m, _PRIMITIVES)
            or type(m).__module__ in _ACTIVATION_MODULES
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        self.stack.append((path, m))
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.culprit = self.culprit or path
            raise
        finally:
            self.stack.pop()


def _decided(argument: fx.Proxy) -> Any:
    """The default of an argument that is a switch; its place in the graph goes."""
    node = argument.node
    if node.op != "placeholder" or not node.args or not isinstance(node.args[0], bool | None):
        return argument
    node.graph.erase_node(node)
    return node.args[0]


@contextlib.contextmanager
def _training_as_attribute(tracer: _Tracer) -> Iterator[None]:
    """While tracing, `self.training` of the module being traced is a proxy that reads the attribute when it runs."""

    def read(module: nn.Module) -> Any:
        current, path = (tracer.stack[-1][1], tracer.stack[-1][0] + ".") if tracer.stack else (None, "")
        at_root = current is None and module is getattr(tracer, "root", None)
        tracer.root_read_mode |= at_root
        if at_root and tracer.mode is not None:
            return tracer.mode
        if module is current or at_root:
            return tracer.create_proxy("get_attr", f"{path}training", (), {})
        return module.__dict__["training"]

    def write(module: nn.Module, value: bool) -> None:
        module.__dict__["training"] = value

    before = nn.Module.__dict__.get("training")
    nn.Module.training = property(read, write)  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del nn.Module.training
        else:
            nn.Module.training = before


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
