"""The tracer: which modules it goes into, and what it makes of sizes and modes."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from sesurgery.surgeons.fx.arguments import call_for
from sesurgery.surgeons.fx.changed import Changed, replayed
from sesurgery.surgeons.fx.inputs import Inputs
from sesurgery.surgeons.fx.ops import is_frozen_norm
from sesurgery.surgeons.fx.regions import Regions
from sesurgery.surgeons.fx.sizes import Sizes
from sesurgery.surgeons.fx.symbols import Symbol
from sesurgery.surgeons.fx.traced import Call, Way

# Whatever derives from these is one operation to planning, however its forward is written.
_PRIMITIVES: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
)
_ACTIVATION_MODULES = ("timm.layers.activations", "timm.layers.activations_me")


def is_primitive(module: nn.Module) -> bool:
    """Whether it is one operation to planning, however its forward is written."""
    return isinstance(module, _PRIMITIVES) or is_frozen_norm(type(module))


class _Ready(BaseException):
    """Stops torch.fx between two of its steps."""


class Tracer(fx.Tracer):
    """Knows which module's forward it is in, and takes some modules as leaves."""

    def __init__(self, inputs: Inputs, way: Way, leaves: Collection[str], modes: dict[str, bool], sizes: Sizes) -> None:
        super().__init__()
        self.leaves = leaves
        self.way = way
        self.inputs = inputs
        self.modes = modes
        self.sizes = sizes
        self.faithful = way.guarded
        self.read_modes: set[str] = set()
        self.read_values: dict[str, Any] = {}
        self.stack: list[tuple[str, nn.Module]] = []
        self.calls: list[Call] = []
        self.culprit: str | None = None
        self.learn: Callable[[str, Exception], bool] = lambda *_: False
        """Told which module could not be traced, and why; whether it knows another way of taking that module."""
        self.scripted: set[str] = set()
        self.regions: Regions | None = None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Symbol(node, self)

    def create_arg(self, a: Any) -> Any:
        # A symbol says it is a tensor, and is not constant.
        if issubclass(type(a), fx.Proxy):
            return a.node
        if self.faithful and isinstance(a, OrderedDict):
            # An output of a class of its own (an ordered dictionary, a ModelOutput) is made again, not a plain one.
            if dataclasses.is_dataclass(a):
                names = (item.name for item in dataclasses.fields(a))
                given = {name: value for name in names if (value := getattr(a, name)) is not None}
                return self.create_node("call_function", type(a), (), self.create_arg(given))
            return self.create_node("call_function", type(a), (self.create_arg([*a.items()]),), {})
        return super().create_arg(a)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if self.regions is not None and kind not in ("placeholder", "get_attr"):
            self.regions.before_a_node()
        node = super().create_node(kind, target, *args, **kwargs)
        if self.faithful and len(self.modes):
            node.meta["sesurgery_line"] = _line()
        return node

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A decision that follows from the input's size is taken for this size; any other cannot be traced."""
        answer = self.sizes.answer(obj.node)
        return super().to_bool(obj) if answer is None else answer

    def set_up(self, root: nn.Module) -> None:
        """Let torch.fx make ready for tracing the module, and stop before it patches anything."""
        with contextlib.suppress(_Ready):
            self.trace(root)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Never returns: it is the first thing that torch.fx asks when it is ready."""
        raise _Ready

    def record_root(self) -> None:
        """Run the root's forward, its arguments as symbols but for those that decide, and record what it gives."""
        root: Any = self.root
        self.regions = Regions(self)
        forward = _replaying(self, root) if isinstance(root, Changed) else root.forward
        run = call_for(self, forward, self.inputs, self.sizes, guarded=self.way.guarded)
        kind = inspect.get_annotations(run).get("return")
        self.create_node("output", "output", (self.create_arg(run()),), {}, type_expr=kind)
        self.submodule_paths = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.way.open is not None:
            return module_qualified_name not in self.way.open
        return (
            module_qualified_name in self.leaves
            or is_primitive(m)
            or isinstance(m, torch.jit.ScriptModule)
            or type(m).__module__ in _ACTIVATION_MODULES
            or (super().is_leaf_module(m, module_qualified_name) and not isinstance(m, Changed | nn.DataParallel))
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._is_made_on_the_way(m):
            return m.forward(*args, **kwargs)
        path = self.path_of_module(m)
        # As torch.fx names calls in the stack of a node.
        key = f"{path}@{number}" if (number := self.num_calls.get(path, 0)) else path
        inside = [*self.module_stack.items()]
        while not self.is_leaf_module(m, path):
            self.stack.append((path, m))
            try:
                # Not by `__call__`: hooks are for values, not for symbols.
                own = _replaying(self, m) if isinstance(m, Changed) else m.forward
                result = super().call_module(m, own, args, kwargs)
                self.calls.append(Call(key, path, number, *map(self._nodes, (args, kwargs, result))))
                return result
            except Exception as error:
                if self.culprit is not None or not self.learn(path, error):
                    self.culprit = self.culprit or path
                    raise
                # torch.fx leaves a module that raises on its stack.
                self.module_stack = OrderedDict(inside)
            finally:
                self.stack.pop()
        if self.way.open is None and isinstance(m, torch.jit.ScriptModule):
            self.scripted.add(path)
        return super().call_module(m, forward, args, kwargs)

    def _is_made_on_the_way(self, m: nn.Module) -> bool:
        """Whether a forward made it (`self.features[:4]`, `nn.ReLU()`): it only calls modules of the network."""
        if m._parameters or m._buffers:
            return False
        try:
            self.path_of_module(m)
        except NameError:
            return True
        return False

    def _nodes(self, value: Any) -> Any:
        def node(item: Any) -> Any:
            return item.node if issubclass(type(item), fx.Proxy) else item

        return map_aggregate(value, node)


def _replaying(tracer: Tracer, module: Any) -> Callable[..., Any]:
    """A changed module's forward, whose operations keep the scopes that they had."""

    def scoped(inner: dict[str, Any], run: Callable[[], Any]) -> Any:
        before = list(tracer.module_stack.items())
        outer = f"{tracer.stack[-1][0]}." if tracer.stack else ""
        for key, (path, kind, *_) in inner.items():
            tracer.module_stack[f"{outer}{key}"] = (f"{outer}{path}", kind)
        try:
            return run()
        finally:
            tracer.module_stack.clear()
            tracer.module_stack.update(before)

    path = tracer.stack[-1][0] if tracer.stack else ""
    if len(module.sesurgery_graphs) == 1:
        return replayed(module, module.sesurgery_graphs[0], scoped)
    tracer.read_modes.add(path)
    if path not in tracer.modes:
        return _refuse
    return replayed(module, module.sesurgery_graphs[tracer.modes[path]], scoped)


def _refuse(*_: Any, **__: Any) -> Any:
    raise fx.proxy.TraceError("it runs another graph in training than in evaluation")


def _line() -> tuple[str, int] | None:
    """The line of the user's code that is being traced."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(("torch.", "sesurgery.surgeons")):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None
