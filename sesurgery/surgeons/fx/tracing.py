"""Symbolic tracing in which untraceable parts become leaves, and train() and eval() keep working.

Two things usually go wrong when torch.fx traces a real network. Control flow on a value raises; where the value follows
from the input's size it is decided for that size (`Sizes`, `Symbol`), otherwise the innermost module being traced is
made a leaf and tracing starts again. And `self.training` is read once, so that dropout is frozen into the mode of
tracing; here it is traced as an attribute of the module, read anew whenever the traced network runs. A forward that
*branches* on `self.training` is drawn as it is in evaluation where that is asked for, and a leaf otherwise; the
network's own forward is traced once for either mode.

What a forward takes beside tensors and decides by (`mask=None`, `features=False`) is as the traced call has it: a graph
holds one of the two ways, and `None` as a symbol would be taken for a value that was given.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from sesurgery.diagnostics import SesurgeryError, fail, first_line
from sesurgery.graph import Shape
from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx import draws
from sesurgery.surgeons.fx.arguments import call_for
from sesurgery.surgeons.fx.changed import Changed, replayed
from sesurgery.surgeons.fx.copying import twin
from sesurgery.surgeons.fx.inputs import Inputs, image_inputs
from sesurgery.surgeons.fx.ops import is_frozen_norm
from sesurgery.surgeons.fx.regions import Regions
from sesurgery.surgeons.fx.sizes import Sizes
from sesurgery.surgeons.fx.symbols import Symbol, builtins_that_see_symbols
from sesurgery.surgeons.fx.writes import reroute_reads

# Whatever derives from these is one operation to planning, however its forward is written.
_PRIMITIVES: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
)
_STACK = "nn_module_stack"
_ACTIVATION_MODULES = ("timm.layers.activations", "timm.layers.activations_me")


def is_primitive(module: nn.Module) -> bool:
    """Whether it is one operation to planning, however its forward is written."""
    return isinstance(module, _PRIMITIVES) or is_frozen_norm(type(module))


@dataclass(frozen=True)
class Call:
    """One call of a module: its key among all calls, and the nodes it was given and gave."""

    key: str
    path: str
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
    where it is None. `branches_as_in_eval` draws what branches on its mode as in evaluation. `guarded` is for a
    graph that stands in for the forward.
    """

    open: Collection[str] | None = None
    branches_as_in_eval: bool = False
    guarded: bool = False
    around: Sizes | None = None


def trace(model: nn.Module, shape: Shape) -> Trace:
    """Trace a network for inputs of `shape` (channels, height, width); the batch stays open.

    Raises SE403 where its own forward cannot be traced even with every part of it a leaf.
    """
    traced = trace_call(model, image_inputs(model, shape), Way())
    for name in traced.constants:
        setattr(model, name, vars(traced.root)[name])
    return replace(traced, root=model)


def trace_call(model: nn.Module, inputs: Inputs, way: Way) -> Trace:
    """Trace one call of a module, which stays untouched; raises SE403 where its own forward cannot be traced."""
    attempt = _Attempt(model, inputs, way)
    evaluating = attempt.until_it_works(training=False)
    if not attempt.branching or (way.branches_as_in_eval and not way.guarded):
        return evaluating
    known = set(attempt.branching)
    training = attempt.until_it_works(training=True)
    if attempt.branching != known:
        evaluating = attempt.until_it_works(training=False)
    # Two copies of one module: what either forward makes gets a name of its own.
    for name in training.constants:
        own = f"{name}_in_training"
        evaluating.root.__dict__[own] = vars(training.root)[name]
        for node in training.graph.nodes:
            if node.op == "get_attr" and node.target == name:
                node.target = own
    constants = (*evaluating.constants, *(f"{name}_in_training" for name in training.constants))
    return replace(evaluating, training_graph=training.graph, constants=constants)


@dataclass
class _Attempt:
    """The state of tracing a module after some failures."""

    model: nn.Module
    inputs: Inputs
    way: Way
    leaves: dict[str, str] = field(default_factory=dict)
    branching: set[str] = field(default_factory=set)

    def until_it_works(self, *, training: bool) -> Trace:
        """Trace, adding leaves; modules that branch on their mode see the one given."""
        while True:
            # Another object every time: a forward may keep what it computed, and that is a symbol while it is traced.
            model = twin(self.model)
            before = {*vars(model)}
            sizes = Sizes(model, self.way.around)
            tracer = _Tracer(self, dict.fromkeys(self.branching, training), sizes)
            try:
                with _tracing(tracer, model):
                    graph = tracer.trace(model)
            except Exception as error:
                self._learn(tracer, error)
                continue
            _forget_symbols(model, self.model)
            constants = tuple({*vars(model)} - before)
            if isinstance(model, fx.GraphModule):
                _restore_scopes(model.graph, graph)
            reroute_reads(model, graph)
            leaves = tuple(Leaf(path, why) for path, why in self.leaves.items())
            branching = frozenset(self.branching)
            return Trace(
                model, graph, leaves, None, tuple(tracer.calls), sizes, branching, tracer.read_values, constants
            )

    def _learn(self, tracer: _Tracer, error: Exception) -> None:
        """Record the obstacle, or give up."""
        culprit = tracer.culprit or ""
        at_root = not culprit
        fixed = at_root or self.way.branches_as_in_eval or self.way.guarded
        if culprit in tracer.read_modes - self.branching and fixed:
            self.branching.add(culprit)
        elif at_root or culprit in self.leaves:
            name = type(self.model).__name__
            if isinstance(error, SesurgeryError):
                raise error
            mode = " in training" if tracer.modes.get("") else ""
            text = f"{name}.forward cannot be traced{mode}: {first_line(error)}"
            raise fail("SE403", text, _what_to_do(error)) from error
        else:
            self.branching.discard(culprit)
            self.leaves[culprit] = first_line(error)


def _forget_symbols(traced: nn.Module, original: nn.Module) -> None:
    """Give the parts of a traced object back what its forward wrote over with symbols: no symbol can be copied."""
    known = dict(original.named_modules())
    for path, module in traced.named_modules():
        before = vars(known[path]) if path in known else {}
        for name in [name for name, value in vars(module).items() if _holds_a_symbol(value)]:
            del module.__dict__[name]
            if name in before:
                module.__dict__[name] = copy.deepcopy(before[name])


def _holds_a_symbol(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_a_symbol, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_holds_a_symbol, value))
    return issubclass(type(value), fx.Proxy)


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

    def __init__(self, attempt: _Attempt, modes: dict[str, bool], sizes: Sizes) -> None:
        super().__init__()
        self.leaves = attempt.leaves
        self.way = attempt.way
        self.inputs = attempt.inputs
        self.modes = modes
        self.sizes = sizes
        self.faithful = attempt.way.guarded
        self.read_modes: set[str] = set()
        self.read_values: dict[str, Any] = {}
        self.stack: list[tuple[str, nn.Module]] = []
        self.calls: list[Call] = []
        self.culprit: str | None = None
        self.regions: Regions | None = None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Symbol(node, self)

    def create_arg(self, a: Any) -> Any:
        # A symbol says it is a tensor, and is no constant.
        if issubclass(type(a), fx.Proxy):
            return a.node
        if self.faithful and isinstance(a, OrderedDict):
            # An output of a class of its own (an ordered dictionary, a ModelOutput) is made anew, not a plain one.
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

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """The root's arguments as symbols, but those that decide."""
        root: Any = self.root
        self.regions = Regions(self)
        forward = _replaying(self, root) if isinstance(root, Changed) else root.forward
        return call_for(self, forward, self.inputs, self.sizes, guarded=self.way.guarded), []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.way.open is not None:
            return module_qualified_name not in self.way.open
        return (
            module_qualified_name in self.leaves
            or is_primitive(m)
            or type(m).__module__ in _ACTIVATION_MODULES
            or (super().is_leaf_module(m, module_qualified_name) and not isinstance(m, Changed))
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        key = f"{path}@{count}" if (count := self.num_calls.get(path, 0)) else path
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        self.stack.append((path, m))
        try:
            # Not by `__call__`: hooks are for values, not for symbols.
            own = _replaying(self, m) if isinstance(m, Changed) else m.forward
            result = super().call_module(m, own, args, kwargs)
            self.calls.append(Call(key, path, *map(self._nodes, (args, kwargs, result))))
            return result
        except Exception:
            self.culprit = self.culprit or path
            raise
        finally:
            self.stack.pop()

    def _nodes(self, value: Any) -> Any:
        def node(item: Any) -> Any:
            return item.node if issubclass(type(item), fx.Proxy) else item

        return map_aggregate(value, node)


def _replaying(tracer: _Tracer, module: Any) -> Callable[..., Any]:
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
    if len(module.graphs) == 1:
        return replayed(module, module.graphs[0], scoped)
    tracer.read_modes.add(path)
    if path not in tracer.modes:
        return _refuse
    return replayed(module, module.graphs[tracer.modes[path]], scoped)


def _refuse(*_: Any, **__: Any) -> Any:
    raise fx.proxy.TraceError("it runs another graph in training than in evaluation")


@contextlib.contextmanager
def _tracing(tracer: _Tracer, model: nn.Module) -> Iterator[None]:
    """Patches for torch.fx while it traces."""

    def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tracer.create_proxy("call_function", function, args, kwargs)

    watched = _root_watched(tracer) if tracer.faithful else contextlib.nullcontext()
    seeing = builtins_that_see_symbols(model.modules())
    with seeing, draws.recorded(record), _training_as_attribute(tracer), watched:
        yield


@contextlib.contextmanager
def _root_watched(tracer: _Tracer) -> Iterator[None]:
    """Within it the root's own plain attributes are noted as its forward reads them: the graph holds their values."""

    def read(module: nn.Module, name: str) -> Any:
        value = object.__getattribute__(module, name)
        at_root = not tracer.stack and module is getattr(tracer, "root", None)
        plain = at_root and type(value) in (bool, int, float, str) and name != "training"
        if plain and name in object.__getattribute__(module, "__dict__"):
            tracer.read_values[name] = value
        return value

    nn.Module.__getattribute__ = read  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del nn.Module.__getattribute__


@contextlib.contextmanager
def _training_as_attribute(tracer: _Tracer) -> Iterator[None]:
    """While tracing, `self.training` of the module being traced is a proxy that reads the attribute when it runs."""

    def read(module: nn.Module) -> Any:
        current, path = (tracer.stack[-1][1], tracer.stack[-1][0]) if tracer.stack else (None, "")
        at_root = current is None and module is getattr(tracer, "root", None)
        if module is not current and not at_root:
            return module.__dict__["training"]
        tracer.read_modes.add(path)
        if path in tracer.modes:
            return tracer.modes[path]
        return tracer.create_proxy("get_attr", f"{path}.training" if path else "training", (), {})

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


def _line() -> tuple[str, int] | None:
    """The line of the user's code that is being traced."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(("torch.", "sesurgery.surgeons")):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _what_to_do(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return "move what depends on the data into a module of its own"
    return "name a part of the network as 'submodule', whose own forward can be traced"
