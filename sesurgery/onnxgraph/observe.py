"""Inner values of an ONNX graph on samples: the one place where a copy of a graph gets more outputs to show them.

Ranges, constant gates, gates, clipping, integer kernels and drift look here. Only ONNX Runtime's calibrators, which are
its own, change a graph for themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from sesurgery.diagnostics import fail
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.numerics import Feeds, Values, runner
from sesurgery.onnxgraph.sessions import session

MOST, LEAST = ".reaches_most", ".reaches_least"


def watching(
    model: onnx.ModelProto, values: Iterable[str], flow: Dataflow | None = None, *, alone: bool = False
) -> onnx.ModelProto:
    """A copy with these values as additional outputs, each once, or `alone` in the place of its own.

    `flow` is the graph's, where it is known already.
    """
    flow = flow or Dataflow(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if alone:
        del copy.graph.output[:]
    known = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(values):
        if name not in known:
            copy.graph.output.append(helper.make_tensor_value_info(name, flow.dtype(name), flow.shape(name)))
    return copy


def observe(
    model: onnx.ModelProto, values: Iterable[str], samples: Iterable[Feeds], flow: Dataflow | None = None
) -> Iterator[Values]:
    """These values on each sample, as the file says: ONNX Runtime computes it without rewriting.

    The value of an input is what the sample holds. Raises SE602 if the graph cannot be run.
    """
    flow = flow or Dataflow(model)
    names = tuple(dict.fromkeys(values))
    # A graph cannot output its input.
    given = flow.inputs - {tensor.name for tensor in model.graph.initializer}
    inner = [name for name in names if name not in given]
    run = runner(watching(model, inner, flow, alone=True)) if inner else None
    for feeds in samples:
        made = run(feeds) if run is not None else {}
        yield {name: np.asarray(feeds[name]) if name in given else made[name] for name in names}


def extremes(model: onnx.ModelProto, values: Sequence[str], samples: Sequence[Feeds]) -> NDArray[np.float64]:
    """The largest absolute number of each value on each sample [samples, values]; infinite where one is no number.

    Each value gets a ReduceMax and a ReduceMin, and only these numbers are outputs, so the memory is that of one run,
    and ONNX Runtime may rewrite the rest. Raises SE602 if the graph cannot be run.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for operator, mark in (("ReduceMax", MOST), ("ReduceMin", LEAST)):
        for name in values:
            watched.graph.node.append(helper.make_node(operator, [name], [f"{name}{mark}"], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(f"{name}{mark}", onnx.TensorProto.FLOAT, []))
    try:
        opened = session(watched)
    except Exception as error:  # its exceptions share no base class but Exception
        text = f"ONNX Runtime cannot run the graph, so its ranges cannot be measured: {error}"
        raise fail("SE602", text) from error
    outputs = [f"{name}{mark}" for mark in (MOST, LEAST) for name in values]
    found: list[NDArray[np.float64]] = []
    for feeds in samples:
        ends = np.array(opened.run(outputs, dict(feeds)), np.float64).reshape(2, len(values))
        # A value that is no number went beyond every limit on its way there.
        found.append(np.nan_to_num(np.abs(ends).max(axis=0), nan=np.inf))
    return np.stack(found)
