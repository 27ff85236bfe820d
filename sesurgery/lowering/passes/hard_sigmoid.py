"""Replace a hard sigmoid that is written as several nodes by one HardSigmoid.

A gate's hard sigmoid is a clipped line, and exporters write it in many ways: relu6(x + 3) / 6, the same times 1/6
(Keras), clip(0.2 x + 0.5, 0, 1), Min and Max instead of Clip. With scalars a, b, c, d all of them have the form

    c * clip(a x + b, low, high) + d

If c low + d = 0 and c high + d = 1 (with c > 0), that is HardSigmoid with alpha = c a and beta = c b + d. A compiler
can fuse one operator into the projection before it. Some compilers make a kernel of each node otherwise, for a few
numbers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import NodeProto

from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import squeezes
from sesurgery.onnxgraph.gates import gate_branches

CLOSE = 1e-5
"""Tolerance of the ends 0 and 1: a sixth has no exact form."""
Line = tuple[float, float]
"""Slope and offset."""


@dataclass(frozen=True)
class HardSigmoid(KeepsGates):
    """Write the hard sigmoid of a gate as one operator."""

    tolerance: ClassVar[float] = 1e-4

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        branches = gate_branches(rewrite.flow)
        edits = []
        said = set()
        for node in rewrite.flow.nodes:
            squeeze = branches.get(node.output[0])
            if squeeze is None:
                continue
            if (ends := _clip(node, rewrite)) is not None:
                edits.append(_join(node, ends, rewrite))
                said.add(squeeze)
            elif node.op_type == "HardSigmoid":
                edits.append(Edit(node.name, "it is one operator already", changed=False))
                said.add(squeeze)
        for squeeze in squeezes(rewrite.flow):
            if squeeze.output[0] not in said:
                edits.append(Edit(squeeze.name, "its gate has no clipped line", changed=False))
        return Lowered(rewrite.finish(), tuple(edits))


@dataclass(frozen=True)
class _Clip:
    """A clipped value; `last` is the node with the result, `value` what is clipped."""

    value: str
    low: float
    high: float
    last: NodeProto


def _clip(node: NodeProto, rewrite: Rewrite) -> _Clip | None:
    """A node as the start of a clip: Clip, Max then Min, Relu then Min, or the reverse."""
    if node.op_type == "Clip":
        low, high = (_scalar(node.input[at], rewrite) if len(node.input) > at else None for at in (1, 2))
        return None if low is None or high is None else _Clip(node.input[0], low, high, node)
    first = _bound(node, rewrite)
    then = _only_reader(node, rewrite) if first else None
    second = _bound(then, rewrite) if then is not None else None
    if first is None or then is None or second is None or first[1] == second[1]:
        return None
    low, high = (first[2], second[2]) if first[1] == "low" else (second[2], first[2])
    return _Clip(first[0], low, high, then)


def _bound(node: NodeProto, rewrite: Rewrite) -> tuple[str, str, float] | None:
    """The value that a Relu, Min or Max bounds, the side, and the bound."""
    if node.op_type == "Relu":
        return node.input[0], "low", 0.0
    if node.op_type in ("Min", "Max") and len(node.input) == 2:
        for value, other in zip(node.input, reversed(node.input), strict=True):
            if (bound := _scalar(other, rewrite)) is not None:
                return value, "low" if node.op_type == "Max" else "high", bound
    return None


def _join(node: NodeProto, clip: _Clip, rewrite: Rewrite) -> Edit:
    before, value = (1.0, 0.0), clip.value
    while (maker := rewrite.flow.producer.get(value)) is not None and _only_reader(maker, rewrite) is not None:
        if (step := _line(maker, rewrite)) is None:
            break
        value, line = step
        before = (before[0] * line[0], before[0] * line[1] + before[1])
    after, last = (1.0, 0.0), clip.last
    while not _is_unit(after, clip) and (reader := _only_reader(last, rewrite)) is not None:
        if (step := _line(reader, rewrite)) is None:
            break
        last, line = reader, step[1]
        after = (after[0] * line[0], after[1] * line[0] + line[1])
    if not _is_unit(after, clip):
        ends = " to ".join(f"{after[0] * end + after[1]:.4g}" for end in (clip.low, clip.high))
        return Edit(node.name, f"it is not a hard sigmoid: it goes from {ends}", changed=False)
    alpha, beta = after[0] * before[0], after[0] * before[1] + after[1]
    rewrite.replace(last, [rewrite.node(last, "HardSigmoid", [value], last.output[0], alpha=alpha, beta=beta)])
    return Edit(last.name, f"one hard sigmoid, with alpha {alpha:.4g} and beta {beta:.4g}", changed=True)


def _is_unit(line: Line, clip: _Clip) -> bool:
    low, high = (line[0] * end + line[1] for end in (clip.low, clip.high))
    return abs(low) < CLOSE and abs(high - 1) < CLOSE


def _line(node: NodeProto, rewrite: Rewrite) -> tuple[str, Line] | None:
    """The value that a node scales or shifts by a scalar, and the line."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    left, right = (_scalar(name, rewrite) for name in node.input)
    if (left is None) == (right is None):
        return None
    number = left if left is not None else right
    assert number is not None
    value = node.input[1] if left is not None else node.input[0]
    if node.op_type == "Add":
        return value, (1.0, number)
    if node.op_type == "Mul":
        return value, (number, 0.0)
    if node.op_type == "Sub":
        return value, (1.0, -number) if left is None else (-1.0, number)
    return None if left is not None or not number else (value, (1 / number, 0.0))


def _only_reader(node: NodeProto, rewrite: Rewrite) -> NodeProto | None:
    readers = rewrite.uses.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and node.output[0] not in rewrite.outputs else None


def _scalar(name: str, rewrite: Rewrite) -> float | None:
    found = rewrite.flow.constant(name) if name else None
    return float(found.reshape(())) if found is not None and found.size == 1 else None


def _example(name: str, nodes: str, changed: int, words: str) -> Example:
    graph = f"""(float[N,8,5,6] x) => (float[N,8,5,6] y)
    <float[8,8,1,1] w, float zero = {{0.0}}, float one = {{1.0}}, float three = {{3.0}}, float six = {{6.0}},
     float sixth = {{0.16666667}}, float fifth = {{0.2}}, float half = {{0.5}}>
    {{ z = GlobalAveragePool(x) p = Conv(z, w) {nodes} y = Mul(x, gate) }}"""
    return Example(name, functools.partial(examine, HardSigmoid(), graph, changed, words))


EXAMPLES = (
    _example(
        "relu6(x + 3) / 6",
        "h = Add(p, three) c = Clip(h, zero, six) gate = Div(c, six)",
        1,
        "alpha 0.1667 and beta 0.5",
    ),
    _example(
        "Keras",
        "h = Add(p, three) a = Relu(h) c = Min(six, a) gate = Mul(sixth, c)",
        1,
        "alpha 0.1667 and beta 0.5",
    ),
    _example(
        "a fifth",
        "m = Mul(fifth, p) h = Add(m, half) a = Min(h, one) gate = Max(a, zero)",
        1,
        "alpha 0.2 and beta 0.5",
    ),
    _example("divided first", "d = Div(p, six) h = Add(d, half) gate = Clip(h, zero, one)", 1, "alpha 0.1667"),
    _example("relu6 alone", "gate = Clip(p, zero, six)", 0, "goes from 0 to 6"),
    _example(
        "a hard swish within",
        "h = Add(p, three) c = Clip(h, zero, six) d = Mul(p, c) e = Div(d, six) gate = Sigmoid(e)",
        0,
        "not a hard sigmoid",
    ),
    _example("one operator already", "gate = HardSigmoid(p)", 0, "one operator already"),
    _example("a sigmoid", "gate = Sigmoid(p)", 0, "no clipped line"),
)
