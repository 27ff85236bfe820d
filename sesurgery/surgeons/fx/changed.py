"""A changed module: the user's own object, whose forward is a graph with blocks in it, copied and pickled as it stands.

Only the modules that hold a block between two of their operations are changed. Class, attributes, hooks, tables and the
order of keys are the module's own, for it is the same object: its class becomes one derived from it, with another
forward. Copying writes the graph's nodes down; drawn again from its code, it would be another network: `self.training`
would be read once and dropout frozen, and what the first tracing decided would be asked again (pytorch#198077).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import itertools
import linecache
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import CodeType
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.amp import autocast_mode
from torch.fx.node import map_aggregate, map_arg

from sesurgery.surgeons.fx.forward_code import fusing_methods, names_read, walks
from sesurgery.surgeons.fx.regions import region, restore

# Attributes of a module whose author has names of his own: a network may well have parts called `blocks` or `graphs`.
GRAPHS, BLOCKS, READ, UNFUSABLE = "sesurgery_graphs", "sesurgery_blocks", "sesurgery_read", "sesurgery_unfusable"
_count = itertools.count()


@dataclass(frozen=True)
class _Value:
    """Stands for the node of this number where an argument reads it."""

    number: int


@dataclass(frozen=True)
class _Named:
    """Stands for a function that pickle cannot name, though it can be found in a module under this path."""

    module: str
    path: str


@dataclass(frozen=True)
class _Line:
    """One node as plain data."""

    name: str
    op: str
    target: Any
    args: Any
    kwargs: Any
    annotation: Any
    meta: dict[str, Any]


class Dressed:
    """An object of the user's class and of one derived from it; copied and pickled by way of the user's own."""

    sesurgery_original: type[nn.Module]

    def __reduce__(self) -> tuple[Any, ...]:
        """The original class first, so that whatever refers back to the network finds an object."""
        state = {name: value for name, value in self.__dict__.items() if name != GRAPHS}
        graphs = [_written(graph) for graph in self.__dict__.get(GRAPHS, ())]
        return _undressed, (self.sesurgery_original,), {"own": state, "graphs": graphs}

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        """The same in every protocol."""
        return self.__reduce__()


class Changed(Dressed):
    """A module whose forward is a graph: one of `graphs`, or one a mode (eval, train)."""

    sesurgery_graphs: tuple[fx.Graph, ...]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; raises where the graph holds its old value, so that setting it would have no effect."""
        fixed = self.__dict__.get(READ, {})
        if name in fixed and value != fixed[name]:
            raise AttributeError(
                f"{type(self).__name__}.{name} was {fixed[name]!r} when blocks were put into this forward, and is "
                f"part of it now: set {name!r} on the original network, and insert the blocks again"
            )
        super().__setattr__(name, value)


def code_of(module: Changed) -> str:
    """The source of what runs, both modes' where they differ."""
    return "\n".join(graph.python_code("self").src for graph in module.sesurgery_graphs)


@contextlib.contextmanager
def _apart(module: Any) -> Iterator[None]:
    """The module without the blocks that it holds for the forward of another."""
    whole, blocks = module.__dict__["_modules"], module.__dict__[BLOCKS]
    module.__dict__["_modules"] = {name: part for name, part in whole.items() if name not in blocks}
    try:
        yield
    finally:
        module.__dict__["_modules"] = whole


class Holding(Dressed):
    """A container with an inserted block: length, index and iteration see only its own parts."""

    def __len__(self) -> int:
        with _apart(self):
            return int(super().__len__())  # type: ignore[misc]

    def __iter__(self) -> Iterator[Any]:
        with _apart(self):
            return iter([*super().__iter__()])  # type: ignore[misc]

    def __getitem__(self, index: Any) -> Any:
        with _apart(self):
            return super().__getitem__(index)  # type: ignore[misc]


class Walking(Dressed):
    """A module with an inserted block, whose own forward walks through its parts: it sees only those."""


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _original(module: nn.Module) -> type[nn.Module]:
    return type(module).sesurgery_original if isinstance(module, Dressed) else type(module)


def read_by_forward(module: nn.Module) -> set[str]:
    """The names that may be attributes read by the module's forward, or by methods it calls; none if it is a graph."""
    return set() if isinstance(module, Changed) else names_read(_original(module))


class _Undressed(nn.Module):
    """A changed module whose state is not loaded yet."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__class__ = self.__dict__.pop("becomes")
        nn.Module.__setstate__(self, state["own"])  # type: ignore[no-untyped-call]
        if state["graphs"]:
            self.__dict__[GRAPHS] = tuple(map(_read, state["graphs"]))
        _dress(self)


def _undressed(kind: type[nn.Module]) -> nn.Module:
    made = _Undressed.__new__(_Undressed)
    made.__dict__["becomes"] = kind
    return made


def change(module: nn.Module, graphs: Iterable[fx.Graph], read: Mapping[str, Any]) -> None:
    """Make these graphs the module's forward; `read` are the attributes whose values they hold."""
    module.__dict__.pop("forward", None)
    module.__dict__[READ] = {**module.__dict__.get(READ, {}), **read}
    module.__dict__[GRAPHS] = tuple(graphs)
    module.__dict__[UNFUSABLE] = tuple(fusing_methods(_original(module)))
    _dress(module)


def hold(module: nn.Module, block: str) -> None:
    """Exclude the block of that name from the container's length, index and iteration, and from what a forward walks.

    A graph that calls the block finds it by its name.
    """
    original = _original(module)
    if isinstance(module, _CONTAINERS) or walks(original):
        module.__dict__[BLOCKS] = (*module.__dict__.get(BLOCKS, ()), block)
        _dress(module)


def forbid_fusing(module: nn.Module, methods: Iterable[str] | None = None) -> None:
    """Make the module's fusing methods raise, or those of `methods` alone: they would leave a block inside it out."""
    known = {*fusing_methods(_original(module))}
    if found := known if methods is None else known.intersection(methods):
        module.__dict__[UNFUSABLE] = tuple(sorted(found.union(module.__dict__.get(UNFUSABLE, ()))))
        _dress(module)


def _dress(module: nn.Module) -> None:
    """Give the module the class that its graphs and blocks need, derived from its own."""
    original = _original(module)
    own: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "sesurgery_original": original,
    }
    bases: tuple[type, ...] = (original,)
    if BLOCKS in module.__dict__:
        bases = (Holding, *bases) if issubclass(original, _CONTAINERS) else bases
        if walks(original) and callable(run := getattr(original, "forward", None)):
            bases, own["forward"] = (Walking, *bases), _past_blocks(run)
    if graphs := module.__dict__.get(GRAPHS):
        bases = (Changed, *bases)
        own["forward"] = _forward(graphs, original)
    own |= {name: _refusal(original, name) for name in module.__dict__.get(UNFUSABLE, ())}
    module.__class__ = type(original.__name__, bases, own)


def _refusal(original: type, method: str) -> Callable[..., Any]:
    def refuse(self: nn.Module, *_: Any, **__: Any) -> Any:
        raise RuntimeError(
            f"{original.__name__}.{method}() makes one operation of parts that have attention blocks behind or between "
            f"them, and would leave the blocks out: fuse the original network, and insert the blocks into the result"
        )

    return refuse


def _past_blocks(run: Callable[..., Any]) -> Callable[..., Any]:
    """The author's forward, which does not see the blocks that the module holds."""

    @functools.wraps(run)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _apart(self):
            return run(self, *args, **kwargs)

    return forward


def _forward(graphs: tuple[fx.Graph, ...], original: type) -> Callable[..., Any]:
    runs = [compiled(graph, original.__name__) for graph in graphs]
    if len(runs) == 1:
        return runs[0]
    evaluating, training = runs

    @functools.wraps(evaluating)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (training if self.training else evaluating)(self, *args, **kwargs)

    return forward


def compiled(graph: fx.Graph, name: str) -> Callable[..., Any]:
    """The graph as a function, whose lines tracebacks can show."""
    code = graph.python_code("self")
    space = dict(code.globals)
    exec(_bytecode(code.src, name), space)
    run: Callable[..., Any] = space["forward"]
    if any(node.target in _OPENS for node in graph.nodes):
        return _modes_kept(run)
    return run


@functools.lru_cache(maxsize=64)
def _bytecode(source: str, name: str) -> CodeType:
    """The source compiled; the units of a stage mostly have one source."""
    file = f"<forward of {name} with blocks {next(_count)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return compile(source, file, "exec")


_OPENS = (torch._C._set_grad_enabled, autocast_mode._enter_autocast)
"""What opens a region of no gradients or of autocast in a graph."""


def _modes_kept(run: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the modes of gradients and autocast restored afterwards if it raises."""

    @functools.wraps(run)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        before = region()
        try:
            return run(self, *args, **kwargs)
        except BaseException:
            restore(before)
            raise

    return forward


def replayed(
    module: nn.Module, graph: fx.Graph, scoped: Callable[[dict[str, Any], Callable[[], Any]], Any]
) -> Callable[..., Any]:
    """The graph run operation by operation, each within `scoped` with the scopes that it has by itself."""

    class Replay(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            run = super().run_node
            inner = n.meta.get("nn_module_stack") or {}
            return scoped(inner if n.op in ("call_function", "call_method") else {}, lambda: run(n))

    signature = inspect.signature(module.forward)

    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments.values()
        return Replay(module, graph=graph, garbage_collect_values=False).run(*values, enable_io_processing=False)

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward


def _written(graph: fx.Graph) -> list[_Line]:
    numbers = {node: _Value(number) for number, node in enumerate(graph.nodes)}
    return [
        _Line(
            node.name,
            node.op,
            _named(node.target),
            map_arg(node.args, numbers.__getitem__),  # type: ignore[arg-type]
            map_arg(node.kwargs, numbers.__getitem__),  # type: ignore[arg-type]
            node.type,
            {**node.meta, **_scopes(node)},
        )
        for node in graph.nodes
    ]


def _scopes(node: fx.Node) -> dict[str, Any]:
    """The scopes of a node, each with a class that can be named: parametrised modules have one made for them."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        # An inserted block has none: torch works it out where it stands, but not over an empty one.
        return {}
    return {"nn_module_stack": {key: (path, _nameable(kind)) for key, (path, kind, *_) in stack.items()}}


def _nameable(kind: Any) -> Any:
    for base in getattr(kind, "__mro__", ()):
        with contextlib.suppress(ImportError, AttributeError):
            if _found(_Named(base.__module__, base.__qualname__)) is base:
                return base
    return nn.Module


def _named(target: Any) -> Any:
    if isinstance(target, OpOverload | OpOverloadPacket):
        return _Named("torch", f"ops.{target}")
    if callable(target) and "<locals>" in getattr(target, "__qualname__", ""):
        # Such as F.max_pool2d, which is made by a function that chooses between two.
        name = _Named(target.__module__, target.__name__)
        with contextlib.suppress(ImportError, AttributeError):
            return name if _found(name) is target else target
    return target


def _found(name: _Named) -> Any:
    return attrgetter(name.path)(importlib.import_module(name.module))


def _read(lines: Iterable[_Line]) -> fx.Graph:
    graph = fx.Graph()
    nodes: list[fx.Node] = []

    def value(item: Any) -> Any:
        return nodes[item.number] if isinstance(item, _Value) else item

    for line in lines:
        target = _found(line.target) if isinstance(line.target, _Named) else line.target
        args, kwargs = map_aggregate(line.args, value), map_aggregate(line.kwargs, value)
        node = graph.create_node(line.op, target, args, kwargs, line.name, line.annotation)
        node.meta.update(line.meta)
        nodes.append(node)
    return graph
