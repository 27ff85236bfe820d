"""One operation in two tracings of a network: the n-th of its kind in its scope is the same in both."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator

from torch import fx

from sesurgery.diagnostics import fail
from sesurgery.planner import Site
from sesurgery.surgeons.fx.owners import Calls, Owner
from sesurgery.surgeons.fx.traced import Call, Trace

Place = tuple[object, ...]
# Where a graph stands in for a forward, `x += y` on its argument is written in place, as the caller sees it.
_SAME = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
_BESIDE = ("placeholder", "output", "get_attr")


def known(calls: Calls, owner: Owner, traced: Trace) -> dict[str, fx.Node]:
    """For the name in the view of every node that the owner's items stand on, the node of the owner's own graph."""
    path = calls.path(owner.base)
    seen = set(owner.base) | owner.open
    flat = [node for node in calls.below(owner.base) if seen.issuperset(calls.chain(node)) and node.op not in _BESIDE]
    own = [node for node in traced.graph.nodes if node.op not in _BESIDE]
    there = dict(_places(own, "", None))
    found = {calls.frame.name(node): there[place] for place, node in _places(flat, path, calls) if place in there}
    if not owner.base:
        outputs = [node for node in calls.frame.traced.graph.nodes if node.op == "output"]
        found |= {calls.frame.name(node): _end(traced.graph) for node in outputs}
        inputs = {node.target: node for node in traced.graph.nodes if node.op == "placeholder"}
        outer = [node for node in calls.frame.traced.graph.nodes if node.op == "placeholder"]
        found |= {calls.frame.name(node): inputs[node.target] for node in outer if node.target in inputs}
    for item in owner.items:
        node = _value(calls, owner, traced, calls.resolve(owner, item))
        if node is not None:
            found[calls.frame.name(item.value)] = node
        if isinstance(item.what, Site) and calls.frame.name(item.value) in found:
            # The block may stand behind identities that follow the planned value.
            found[item.what.value] = found[calls.frame.name(item.value)]
    return found


def _end(graph: fx.Graph) -> fx.Node:
    """The node that reads the results: the output, or the call that builds a custom output object."""
    output: fx.Node = graph.output_node()
    result = output.args[0]
    return result if isinstance(result, fx.Node) and isinstance(result.target, type) else output


def _value(calls: Calls, owner: Owner, traced: Trace, how: fx.Node | Call | str | None) -> fx.Node | None:
    if isinstance(how, str):
        found: fx.Node = next(node for node in traced.graph.nodes if node.op == "placeholder" and node.target == how)
        return found
    if isinstance(how, Call):
        same = [call for call in calls.by_key.values() if call.path == how.path]
        same.sort(key=lambda call: call.number)
        target = _within(how.path, calls.path(owner.base))
        made: list[fx.Node] = [
            node for node in traced.graph.nodes if node.op == "call_module" and node.target == target
        ]
        return made[same.index(how)]
    return None


def in_training(evaluating: fx.Graph, training: fx.Graph, names: dict[str, fx.Node]) -> dict[str, fx.Node]:
    """The same nodes in the graph of the other mode, told by the lines that made them."""
    there = dict(_places(training.nodes, "", None, lines=True))
    here = {node: place for place, node in _places(evaluating.nodes, "", None, lines=True)}
    return {name: there[here[node]] for name, node in names.items() if here[node] in there}


def missing(name: str, where: str) -> Exception:
    """The error for an operation that is not found in the other mode."""
    text = f"{name} runs in evaluation alone: in training {where or 'the network'} takes another way there"
    return fail("SE403", text, "leave it out with 'except', or choose another placement")


def _places(nodes: object, path: str, calls: Calls | None, *, lines: bool = False) -> Iterator[tuple[Place, fx.Node]]:
    counts: Counter[Place] = Counter()
    for node in nodes:  # type: ignore[attr-defined]
        stack = node.meta.get("nn_module_stack") or {}
        keys = [entry[0] for entry in stack.values()]
        scope = (keys[:-1] if node.op == "call_module" else keys)[-1:]
        target = node.target
        if node.op in ("call_module", "get_attr"):
            target = _within(str(target), path)
        elif isinstance(target, Callable):  # type: ignore[arg-type]
            target = _SAME.get(target, target)
        kind: Place = (node.op, target, _within(scope[0], path) if scope else "")
        if lines:
            kind = (*kind, node.meta.get("sesurgery_line"))
        yield (*kind, counts[kind]), node
        counts[kind] += 1


def _within(path: str, outer: str) -> str:
    return "" if path == outer else path.removeprefix(f"{outer}.") if outer else path
