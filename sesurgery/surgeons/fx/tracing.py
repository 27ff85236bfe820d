"""Symbolic tracing in which untraceable parts become leaves, and train() and eval() keep working.

Two things usually go wrong when torch.fx traces a real network. Control flow on a value raises; where the value follows
from the input's size it is decided for that size (`Sizes`, `Symbol`), otherwise the innermost module being traced is
made a leaf, and tracing starts again once all of these are known. And `self.training` is read once, so that dropout is
frozen into the mode of tracing; here it is traced as an attribute of the module, read again whenever the traced network
runs. A forward that *branches* on `self.training` is drawn as it is in evaluation where that is asked for, and a leaf
otherwise; the network's own forward is traced once for either mode.

What a forward takes beside tensors and decides by (`mask=None`, `features=False`) is as the traced call has it: a graph
holds one of the two ways, and `None` as a symbol would be taken for a value that was given.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from sesurgery.diagnostics import SesurgeryError, fail, first_line
from sesurgery.graph import Shape
from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx.causes import how_to_trace
from sesurgery.surgeons.fx.copying import twin
from sesurgery.surgeons.fx.inputs import Inputs, image_inputs
from sesurgery.surgeons.fx.patches import Patches, patched
from sesurgery.surgeons.fx.sizes import Sizes
from sesurgery.surgeons.fx.traced import Trace, Way
from sesurgery.surgeons.fx.tracer import Tracer
from sesurgery.surgeons.fx.writes import reroute_reads

NOT_THE_SAME = "traced, it is another function"
KINDS = {NOT_THE_SAME: "not_the_same"}
_SCRIPTED = "it is scripted: its forward is not Python any more"
_OTHERWISE = "name a part of the network as 'submodule', whose own forward can be traced"
_MORE_THAN_IMAGES = (
    "where it needs more than images in training, give that too, `sesurgery.insert(..., example_input=(image, "
    "targets))`; or name a part of it as 'submodule', whose own forward can be traced"
)
_STACK = "nn_module_stack"


def trace(model: nn.Module, shape: Shape) -> Trace:
    """Trace a network for inputs of `shape` (channels, height, width); the batch stays open.

    Raises SE403 if its own forward cannot be traced even with every part of it a leaf.
    """
    traced = trace_call(model, image_inputs(model, shape), Way())
    for name in traced.constants:
        setattr(model, name, vars(traced.root)[name])
    return replace(traced, root=model)


def trace_call(model: nn.Module, inputs: Inputs, way: Way, patches: Patches | None = None) -> Trace:
    """Trace one call of a module, which stays untouched; raises SE403 if its own forward cannot be traced.

    `patches` are on already, where several modules are traced.
    """
    attempt = _Attempt(model, inputs, way, patches, dict.fromkeys(way.called, NOT_THE_SAME))
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
    patches: Patches | None
    leaves: dict[str, str] = field(default_factory=dict)
    branching: set[str] = field(default_factory=set)

    def until_it_works(self, *, training: bool) -> Trace:
        """Trace, adding leaves; modules that branch on their mode see the one given.

        An attempt goes on behind a module that cannot be traced, to find all of them. What it recorded until then is
        thrown away: the next attempt knows them from the start.
        """
        while True:
            # Another object every time: a forward may keep what it computed, and that is a symbol while it is traced.
            model = twin(self.model)
            before = {*vars(model)}
            sizes = Sizes(model, self.way.around)
            modes = dict.fromkeys(self.branching, training)
            tracer = Tracer(self.inputs, self.way, self.leaves, modes, sizes)
            learned: list[str] = []
            tracer.learn = partial(self._goes_on, tracer, learned, model, training)
            try:
                graph = self._graph(model, tracer)
            except Exception as error:
                if not learned:
                    self._learn_of_root(tracer, error)
                continue
            if learned:
                continue
            _forget_symbols(model, self.model)
            constants = tuple({*vars(model)} - before)
            if isinstance(model, fx.GraphModule):
                _restore_scopes(model.graph, graph)
            reroute_reads(model, graph)
            why_not = self.leaves | dict.fromkeys(sorted(tracer.scripted), _SCRIPTED)
            leaves = tuple(Leaf(path, why, KINDS.get(why, "")) for path, why in why_not.items())
            branching = frozenset(self.branching)
            return Trace(
                model, graph, leaves, None, tuple(tracer.calls), sizes, branching, tracer.read_values, constants
            )

    def _graph(self, model: nn.Module, tracer: Tracer) -> fx.Graph:
        if self.patches is not None:
            return self.patches.graph_of(model, tracer)
        return patched(model.modules(), lambda patches: patches.graph_of(model, tracer))

    def _goes_on(
        self, tracer: Tracer, learned: list[str], model: nn.Module, training: bool, path: str, error: Exception
    ) -> bool:
        """Take a module that could not be traced as it is in one mode, or as a leaf; False if it is one already."""
        if path in self.leaves:
            return False
        fixed = self.way.branches_as_in_eval or self.way.guarded
        if path in tracer.read_modes - self.branching and fixed:
            self.branching.add(path)
            tracer.modes[path] = training
        else:
            self.branching.discard(path)
            self.leaves[path] = first_line(error)
        learned.append(path)
        _forget_symbols(model.get_submodule(path), self.model.get_submodule(path))
        return True

    def _learn_of_root(self, tracer: Tracer, error: Exception) -> None:
        """Record that the network's own forward branches on its mode, or give up."""
        if tracer.culprit is None and "" in tracer.read_modes - self.branching:
            self.branching.add("")
            return
        if isinstance(error, SesurgeryError):
            raise error
        name = type(self.model).__name__
        in_training = bool(tracer.modes.get(""))
        text = f"{name}.forward cannot be traced{' in training' if in_training else ''}: {first_line(error)}"
        hint = how_to_trace(error, _MORE_THAN_IMAGES if in_training else _OTHERWISE)
        raise fail("SE403", text, hint) from error


def _forget_symbols(traced: nn.Module, original: nn.Module) -> None:
    """Give the parts of a traced object back what its forward wrote over with symbols: no symbol can be copied."""
    found = [
        (module, name)
        for module in traced.modules()
        for name, value in vars(module).items()
        if type(value) not in _ATOMS and _holds_a_symbol(value)
    ]
    if not found:
        return
    paths = {module: path for path, module in traced.named_modules()}
    known = dict(original.named_modules())
    for module, name in found:
        before = vars(known[paths[module]]) if paths[module] in known else {}
        del module.__dict__[name]
        if name in before:
            module.__dict__[name] = copy.deepcopy(before[name])


_ATOMS = frozenset((type(None), bool, int, float, str, set, Tensor, nn.Parameter))


def _holds_a_symbol(value: Any) -> bool:
    kind = type(value)
    if issubclass(kind, _HOLDERS):
        items = value.values() if issubclass(kind, dict) else value
        return bool(items) and any(type(item) not in _ATOMS and _holds_a_symbol(item) for item in items)
    return issubclass(kind, fx.Proxy)


_HOLDERS = (dict, tuple, list)


def _restore_scopes(before: fx.Graph, after: fx.Graph) -> None:
    """Give the operations of a traced graph module the scopes they had when the original network was traced."""
    known, again = _own_operations(before), [node for node in _own_operations(after) if not node.meta.get(_STACK)]
    if [node.target for node in known] == [node.target for node in again]:
        for old, new in zip(known, again, strict=True):
            new.meta[_STACK] = old.meta.get(_STACK, {})


def _own_operations(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op in ("call_function", "call_method")]
