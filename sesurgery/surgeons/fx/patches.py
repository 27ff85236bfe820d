"""What is patched while forwards are traced, put on once for all of them.

torch.fx patches more than a hundred functions for each trace, and two methods of `nn.Module`, and so of every class
below it. That takes longer than to trace a small module. Here one tracer of torch.fx holds the patches and records
nothing: whatever they see goes to the tracer of the module whose turn it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import fx, nn

from sesurgery.muting import fake_tensors_muted
from sesurgery.surgeons.fx import draws
from sesurgery.surgeons.fx.regions import autocast_recorded
from sesurgery.surgeons.fx.symbols import builtins_that_see_symbols
from sesurgery.surgeons.fx.tracer import Tracer

T = TypeVar("T")


def patched(modules: Iterable[nn.Module], work: Callable[[Patches], T]) -> T:
    """The result of `work`, which traces any of these modules, all under one set of patches."""
    patches, results = Patches(), list[T]()

    def run() -> None:
        results.append(work(patches))

    with (
        fake_tensors_muted(),
        builtins_that_see_symbols(modules),
        draws.recorded(patches.record),
        autocast_recorded(lambda: patches.now),
        _training_as_attribute(patches),
    ):
        patches.run = run
        try:
            patches.trace(run)
        finally:
            patches.unwatch()
    return results[0]


class Patches(fx.Tracer):
    """The tracer that torch.fx's patches speak to, on behalf of one that records."""

    run: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.now: Tracer | None = None
        self._root: nn.Module | None = None
        self._parameters: dict[str, fx.Proxy] = {}
        self._watched: dict[Any, Any] = {}

    def graph_of(self, model: nn.Module, tracer: Tracer) -> fx.Graph:
        """The graph of a module's forward, recorded by the tracer."""
        tracer.set_up(model)
        if tracer.faithful:
            self._watch(type(model))
        self.now, self._root, self._parameters = tracer, model, {}
        try:
            # By the patched call, in which torch.fx looks at the names that the forward's file knows.
            nn.Module.__call__(model)
        finally:
            self.now = self._root = None
        return tracer.graph

    def _watch(self, kind: Any) -> None:
        """Have a root's own plain attributes noted as its forward reads them: its graph holds their values."""
        if kind in self._watched:
            return
        self._watched[kind], inherited = vars(kind).get("__getattribute__"), kind.__getattribute__

        def read(module: nn.Module, name: str) -> Any:
            value, tracer = inherited(module, name), self.now
            if tracer is None or tracer.stack or module is not tracer.root or not tracer.faithful:
                return value
            plain = type(value) in (bool, int, float, str) and name != "training"
            if plain and name in object.__getattribute__(module, "__dict__"):
                tracer.read_values[name] = value
            return value

        # In the root's class alone: Python's caches of all classes below the changed one are lost each time.
        kind.__getattribute__ = read

    def unwatch(self) -> None:
        """Let reading be as it was in every class."""
        for kind, own in self._watched.items():
            if own is None:
                del kind.__getattribute__
            else:
                kind.__getattribute__ = own
        self._watched.clear()

    def record(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that is an operation of the module being traced."""
        if self.now is None:
            return function(*args, **kwargs)
        return self.now.create_proxy("call_function", function, args, kwargs)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """What torch.fx runs under its patches."""
        return self.run, []

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """A module's parameter is a symbol for whoever records."""
        return attr_val if self.now is None else self.now.getattr(attr, attr_val, self._parameters)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.now is None:
            return forward(*args, **kwargs)
        if m is self._root:
            self._root = None
            return self.now.record_root()
        return self.now.call_module(m, forward, args, kwargs)


@contextlib.contextmanager
def _training_as_attribute(patches: Patches) -> Iterator[None]:
    """While tracing, `self.training` of the module being traced is a proxy that reads the attribute when it runs."""

    def read(module: nn.Module) -> Any:
        tracer = patches.now
        if isinstance(module, torch.jit.ScriptModule):
            # Its mode is not in its dictionary.
            return module.__getattr__("training")
        if tracer is None:
            return module.__dict__["training"]
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

    def delete(module: nn.Module) -> None:
        # torch does so when it makes a scripted module, as it does for every copy of one.
        del module.__dict__["training"]

    before = nn.Module.__dict__.get("training")
    nn.Module.training = property(read, write, delete)  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del nn.Module.training
        else:
            nn.Module.training = before
