"""Which parameters and inputs of a module a gradient of its output reaches, told from autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

Edge = tuple[Node, int]
"""Where the gradient of a value goes in autograd's graph: a node, and the number of its output."""


def edges(values: Iterable[Tensor]) -> dict[Edge, str]:
    """The edges of a module's inputs, those that take part in differentiation, with what to call them."""
    found: dict[Edge, str] = {}
    for number, value in enumerate(values):
        if value.requires_grad:
            edge = get_gradient_edge(value)
            found[edge.node, edge.output_nr] = f"input {number}"
    return found


def reached(output: Tensor, inputs: Mapping[Edge, str], names: Mapping[Tensor, str]) -> frozenset[str] | None:
    """The names of the parameters and the inputs that a gradient of the output reaches; `names` are the parameters'.

    None where autograd's graph does not say: a function with a backward of its own, such as a checkpoint that runs its
    part again, may reach more than its graph shows.
    """
    if not output.requires_grad:
        return frozenset()
    start = get_gradient_edge(output)
    queue, seen, found = [(start.node, start.output_nr)], set[Edge](), set[str]()
    while queue:
        edge = queue.pop()
        if edge in seen:
            continue
        seen.add(edge)
        node, _ = edge
        if edge in inputs:
            found.add(inputs[edge])
        elif isinstance(node, torch.autograd.function.BackwardCFunction):
            return None
        elif (leaf := getattr(node, "variable", None)) is not None:
            # What is neither a parameter nor an input is a tensor that the forward made.
            found |= {names[leaf]} if leaf in names else set()
        else:
            queue += [(below, number) for below, number in node.next_functions if below is not None]
    return frozenset(found)


def difference(output: Tensor, other: Tensor, inputs: Mapping[Edge, str], module: nn.Module) -> str | None:
    """What a gradient of the one output reaches and of the other does not, or None."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    ours, theirs = (reached(value, inputs, names) for value in (output, other))
    if ours is None or theirs is None or ours == theirs:
        return None
    name = min(ours ^ theirs)
    return f"its output passes {'no' if name in ours else 'a'} gradient to {name!r}"
