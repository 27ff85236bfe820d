"""Fold gates that are the same for every sample into the weights.

A gate may not depend on the input, because it is saturated or dead or never learned to. Then it is one constant per
channel, and a constant scale of a convolution's output is a scale of its weights and bias:

    c (W x + b) = (c W) x + c b

Squeeze, projections and scaling are then removed. In real networks no gate is exactly constant, so this pass is lossy
and no backend uses it by default. It takes samples, and folds a gate if each channel stays within `bound` of the middle
of its range on all samples. The change of the outputs on these samples is measured and reported; on other samples it
may be larger. If an output changes by more than five times `bound` of its largest value, the pass fails.

If an activation stands between convolution and gate, the scale is folded into the convolution that reads the product.
If there is no such convolution, it stays as a constant factor.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx import NodeProto

from sesurgery.lowering import examples as _examples
from sesurgery.lowering.algebra import Array
from sesurgery.lowering.base import Edit, Example, Lowered, Pass, run
from sesurgery.lowering.rewriting import Rewrite, obstacle
from sesurgery.lowering.squeezes import Convolution, comes_from_gate, convolution, scalings, squeezes
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.observe import observe

# Arrays, which a JSON schema cannot describe.
Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class GateRange:
    """The least and the greatest value of each channel of a gate on samples, in the gate's shape, such as (C, 1, 1).

    `scaled` are the products that it is a factor of, each with the name of the other factor, a map.
    """

    name: str
    scaled: tuple[tuple[NodeProto, str], ...]
    low: Array
    high: Array

    @property
    def middle(self) -> Array:
        return (self.low + self.high) / 2

    @property
    def within(self) -> float:
        """The largest distance of any channel from the middle of its range."""
        return float((self.high - self.low).max()) / 2


@dataclass(frozen=True)
class ConstantGates(Pass):
    """Fold gates whose values stay within `bound` of a constant on all samples; lossy, and only on request."""

    needs_samples: ClassVar[bool] = True
    lossy: ClassVar[str] = "accept less, as in `constant_gates(bound=0.001)` or `gates --fold --bound 0.001`"
    tolerance: ClassVar[float] = 0.05

    bound: float = 0.01
    samples: Samples = field(default=(), compare=False, repr=False)

    def with_samples(self, samples: Samples) -> ConstantGates:
        return replace(self, samples=tuple(samples))

    def accepted(self) -> float:
        # Errors of gates add up along the network.
        return 5 * self.bound

    def requires(self, model: onnx.ModelProto) -> str | None:
        if not self.samples:
            return "it needs samples to see which gates are constant: give --calibration FILE.npz, or build from a run"
        return obstacle(model)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        was, now = (len(squeezes(Dataflow(model))) for model in (before, after))
        return super().ensures(before, after) or (f"{now} gates, where {was} were" if now > was else None)

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        edits = []
        kept: list[float] = []
        for gate in gate_ranges(rewrite.model, self.samples, rewrite.flow):
            off = gate.within
            where = rewrite.flow.producer[gate.name].name
            if off > self.bound:
                why = f"a channel is {off:.3g} from the middle of its range, {self.bound:g} is allowed"
                edits.append(Edit(where, f"it is not constant: {why}", changed=False))
                kept.append(off)
                continue
            ways = {_fold(node, name, gate.middle, rewrite) for node, name in gate.scaled}
            why = f"constant within {off:.2g} on {len(self.samples)} samples: {' and '.join(sorted(ways))}"
            edits.append(Edit(where, why, changed=True))
        after = rewrite.finish()
        notes: tuple[str, ...] = (_summary(len(edits), kept, self.bound),) if edits else ()
        if len(kept) < len(edits):
            notes += (_effect(model, after, self.samples),)
        return Lowered(after, tuple(edits), notes=notes)


def gate_ranges(model: onnx.ModelProto, samples: Samples, flow: Dataflow) -> tuple[GateRange, ...]:
    """The range of every gate that a map is scaled by, on samples, in the order of the graph; `flow` is the model's."""
    gates: dict[str, list[tuple[NodeProto, str]]] = {}
    for node, name, gate in scalings(flow):
        gates.setdefault(gate, []).append((node, name))
    found: dict[str, tuple[Array, Array]] = {}
    for seen in observe(model, list(gates), samples, flow) if gates else ():
        for gate, values in seen.items():
            low, high = (np.asarray(end(values.astype(np.float64), axis=0)) for end in (np.min, np.max))
            if gate in found:
                low, high = np.minimum(low, found[gate][0]), np.maximum(high, found[gate][1])
            found[gate] = (low, high)
    return tuple(GateRange(gate, tuple(scaled), *found[gate]) for gate, scaled in gates.items())


def _fold(scaling: NodeProto, name: str, scale: Array, rewrite: Rewrite) -> str:
    """Multiply weights by a constant gate; returns a text that says which weights."""
    flow, result = rewrite.flow, scaling.output[0]
    maker = flow.producer.get(name)
    per_channel = scale.size > 1 and scale.shape == (scale.size, 1, 1)
    before = convolution(maker, flow)
    if maker is not None and isinstance(before, Convolution) and per_channel and _only_its_gate(scaling, name, rewrite):
        factor = scale.reshape(-1)
        _again(maker, before.weight * factor[:, None, None, None], before.bias * factor, rewrite)
        if result in rewrite.outputs:
            rewrite.replace(scaling, [rewrite.node(scaling, "Identity", [name], result)])
        else:
            rewrite.reread(result, name)
        return f"folded into {maker.name}"
    readers = rewrite.uses.get(result, [])
    after = convolution(readers[0], flow) if len(readers) == 1 and result not in rewrite.outputs else None
    if isinstance(after, Convolution) and per_channel and after.groups == 1 and readers[0].input[0] == result:
        _again(readers[0], after.weight * scale.reshape(1, -1, 1, 1), after.bias, rewrite, reads=name)
        return f"folded into {readers[0].name}"
    dtype = onnx.helper.tensor_dtype_to_np_dtype(flow.dtype(result))
    constant = rewrite.weight(f"{result}_scale", scale[None].astype(dtype))
    rewrite.replace(scaling, [rewrite.node(scaling, "Mul", [name, constant], result)])
    return "a constant factor"


def _only_its_gate(scaling: NodeProto, name: str, rewrite: Rewrite) -> bool:
    """Whether a convolution's output is read only by the scaling and the gate, and the gate only by scalings."""
    branches = gate_branches(rewrite.flow)
    gate = next((other for other in scaling.input if other != name), name)
    squeezes = [node.output[0] for node in rewrite.uses[name] if node.output[0] != scaling.output[0]]
    if name in rewrite.outputs or not all(comes_from_gate(gate, rewrite.flow, branches, value) for value in squeezes):
        return False
    inside = {value for value, squeeze in branches.items() if squeeze in squeezes}
    readers = [node for value in inside for node in rewrite.uses.get(value, [])]
    return not inside & rewrite.outputs and all(
        node.output[0] in inside or node.op_type in ("Mul", "Expand") for node in readers
    )


def _again(node: NodeProto, weight: Array, bias: Array, rewrite: Rewrite, reads: str | None = None) -> None:
    """The same convolution with other weights."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(rewrite.flow.dtype(node.input[1]))
    names = [
        rewrite.weight(f"{node.input[1]}_scaled", weight.astype(dtype)),
        rewrite.weight(f"{node.input[1]}_scaled_bias", bias.astype(dtype)),
    ]
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [reads or node.input[0], *names]
    rewrite.replace(node, [made])


def _summary(count: int, kept: Sequence[float], bound: float) -> str:
    words = f"{count - len(kept)} of {count} gates are constant within {bound:g}"
    if not kept:
        return words
    least, most = f"{min(kept):.3g}", f"{max(kept):.3g}"
    return f"{words}, the others are {least if least == most else f'{least} to {most}'} from it and stay"


def _effect(before: onnx.ModelProto, after: onnx.ModelProto, samples: Samples) -> str:
    """The change of the outputs on the samples, as text."""
    expected, found = (_numerics.outputs_of_all(model, samples) for model in (before, after))
    words = f"constant gates change outputs by up to {_numerics.difference(expected, found):.2g} of the largest"
    first = next(iter(expected))
    if expected[first].ndim == 3 and expected[first].shape[-1] > 1:
        same = expected[first].argmax(-1) == found[first].argmax(-1)
        words += f", and the top class of {same.size - same.sum()} of {same.size} samples"
    return words


def _check(name: str, graph: str, spread: float, changed: int, words: str) -> None:
    model = _examples.model(graph)
    samples = [{"x": spread * np.random.default_rng(seed).normal(size=(1, 4, 6, 6))} for seed in range(4)]
    feeds = [{"x": sample["x"].astype(np.float32)} for sample in samples]
    step = ConstantGates(samples=feeds)
    lowered = run(model, [step], verify=True)
    assert [edit.changed for edit in lowered.edits] == [bool(changed)], lowered.edits
    assert words in lowered.edits[0].why, lowered.edits
    assert ["change outputs" in note for note in lowered.notes] == [False, True][: 1 + changed]
    again = run(lowered.model, [step])
    assert not any(edit.changed for edit in again.edits)
    assert again.model.graph.node == lowered.model.graph.node


_HEAD = "(float[N,4,6,6] x) => (float[N,8,6,6] y) <float[8,4,1,1] w, float[8] b, float[8,8,1,1] p, float[8,8,1,1] v>"
_GATE = "z = GlobalAveragePool(u) d = Conv(z, p, b) gate = Sigmoid(d) s = Mul(u, gate)"


def _example(name: str, nodes: str, spread: float, changed: int, words: str) -> Example:
    return Example(name, functools.partial(_check, name, f"{_HEAD} {{ {nodes} }}", spread, changed, words))


EXAMPLES = (
    _example("behind a convolution", f"u = Conv(x, w, b) {_GATE} y = Relu(s)", 1e-3, 1, "folded into"),
    _example("behind an activation", f"c = Conv(x, w, b) u = Relu(c) {_GATE} y = Conv(s, v)", 1e-3, 1, "folded into"),
    _example("between activations", f"c = Conv(x, w, b) u = Relu(c) {_GATE} y = Relu(s)", 1e-3, 1, "a constant factor"),
    _example("one that follows its input", f"u = Conv(x, w, b) {_GATE} y = Relu(s)", 5.0, 0, "it is not constant"),
)
