"""Gates multiplied into the weights of the convolution before them, where these are fewer than the values of its map.

`blocked` scales the map of a convolution that writes it, and the gate is known before that convolution runs once its
squeeze was hoisted. gate * (W x + b) is (gate * W) x + gate * b: one map less is written and read, and the convolution
takes sum and ReLU behind itself as it does in the network without SE.

In blocks, weights lie as (output channels / block, positions, block), where the positions are all input channels and
kernel taps: as a map of that many positions does. So the operator that scales maps scales weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

PAYS = 2.0
"""Up to how many weights for each value of the map. Either way both are written and read once: on SE-ResNet-50, a
quarter more weights than values were still faster than the map, ten times as many no longer (docs/free_se.md)."""


def fold(graph: onnx.GraphProto, scalings: Mapping[str, int], domain: str) -> None:
    """Fold gates where that pays.

    `scalings` are the outputs of the convolutions that scale, with the number of positions of their maps. Such a
    convolution's weight is a Reshape of its gate. The graph's nodes are out of order afterwards.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for output, positions in scalings.items():
        scaling = made_by[output]
        value = scaling.input[0]
        conv = made_by.get(value)
        if conv is None or value in outputs or len(readers[value]) > 1 or not _plain(conv, domain):
            continue
        weight, bias = weights.get(conv.input[1]), weights.get(conv.input[2]) if conv.input[2:] else None
        # The same weights elsewhere would have to stay as they are, too.
        if weight is None or len(readers[weight.name]) > 1 or (conv.input[2:] and bias is None):
            continue
        taps = math.prod(weight.dims[1:])
        if taps > PAYS * positions:
            continue
        gate = made_by[scaling.input[1]].input[0]
        _replace(graph, conv, scaling, gate, weight, bias, taps)


def _plain(conv: NodeProto, domain: str) -> bool:
    """Whether a node is a convolution in blocks that adds and rectifies nothing."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in conv.attribute}
    return (
        conv.op_type == "Conv"
        and conv.domain == domain
        # A fourth input is a sum.
        and len(conv.input) <= 3
        and "activation" not in attributes
        # In groups of several channels, weights lie in another order.
        and attributes.get("group", 1) == 1
    )


def _replace(
    graph: onnx.GraphProto,
    conv: NodeProto,
    scaling: NodeProto,
    gate: str,
    weight: onnx.TensorProto,
    bias: onnx.TensorProto | None,
    taps: int,
) -> None:
    name, dims = weight.name, list(weight.dims)
    channels = dims[0]

    def constant(suffix: str, values: list[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values), f"{name}_{suffix}"))
        return f"{name}_{suffix}"

    # Its bytes stay.
    weight.dims[:] = [1, channels, taps, 1]
    scaled = helper.make_node(
        "Conv",
        [name, scaling.input[1]],
        [f"{name}_scaled_map"],
        name=f"{name}_scaled",
        domain=conv.domain,
        group=channels,
        kernel_shape=[1, 1],
    )
    again = helper.make_node(
        "Reshape", [scaled.output[0], constant("dims", dims)], [f"{name}_gated"], name=f"{name}_gated_Reshape"
    )
    made = [scaled, again]
    shift = ""
    if bias is not None:
        shift = f"{name}_bias_gated"
        flat = helper.make_node(
            "Reshape", [gate, constant("channels", [channels])], [f"{name}_gate"], name=f"{name}_gate_Reshape"
        )
        made += [flat, helper.make_node("Mul", [bias.name, flat.output[0]], [shift], name=shift)]
    conv.input[:] = [conv.input[0], again.output[0], shift, *scaling.input[3:]]
    while not conv.input[-1]:
        conv.input.pop()
    conv.output[0] = scaling.output[0]
    conv.name = scaling.name
    conv.attribute.extend(
        attribute for attribute in scaling.attribute if attribute.name in ("activation", "activation_params")
    )
    graph.node.remove(scaling)
    graph.node.extend(made)
