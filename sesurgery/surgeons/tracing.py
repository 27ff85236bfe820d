"""Symbolic tracing that does not give up: what cannot be traced becomes a leaf, and train() / eval() keep working.

Two things usually go wrong when torch.fx traces a real network. Data-dependent control flow raises; then the innermost
module being traced is made a leaf and tracing starts again. And `self.training` is read once, so that dropout is frozen
into the mode of tracing; here it is traced as an attribute of the module, read anew whenever the traced network runs.
A forward that *branches* on `self.training` cannot be traced and becomes a leaf like any other control flow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torchvision
from torch import fx, nn

from sesurgery.diagnostics import fail

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
_ACTIVATION_MODULES = ("timm.layers.activations", "timm.layers.activations_me")


@dataclass(frozen=True)
class Leaf:
    """A module that tracing passes over as a whole, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Trace:
    """A network's graph over its own modules, and the leaves that were forced."""

    root: nn.Module
    graph: fx.Graph
    leaves: tuple[Leaf, ...]


def trace(model: nn.Module) -> Trace:
    """Trace a network; raises SE403 where its own forward cannot be traced even with every part of it a leaf."""
    leaves: dict[str, str] = {}
    while True:
        tracer = _Tracer(leaves)
        try:
            with _training_as_attribute(tracer):
                graph = tracer.trace(model)
        except Exception as error:
            culprit, why = tracer.culprit, _reason(error)
            if not culprit or culprit in leaves:
                name = type(model).__name__
                text = f"{name}.forward cannot be traced: {why}"
                raise fail("SE403", text, "move what depends on the data into a module of its own") from error
            leaves[culprit] = why
        else:
            return Trace(model, graph, tuple(Leaf(path, why) for path, why in leaves.items()))


class _Tracer(fx.Tracer):
    """Knows which module's forward it is in, and takes some modules as leaves."""

    def __init__(self, leaves: Mapping[str, str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.stack: list[tuple[str, nn.Module]] = []
        self.culprit: str | None = None

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


@contextlib.contextmanager
def _training_as_attribute(tracer: _Tracer) -> Iterator[None]:
    """While tracing, `self.training` of the module being traced is a proxy that reads the attribute when it runs."""

    def read(module: nn.Module) -> Any:
        current, path = (tracer.stack[-1][1], tracer.stack[-1][0] + ".") if tracer.stack else (None, "")
        if module is current or (current is None and module is getattr(tracer, "root", None)):
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
