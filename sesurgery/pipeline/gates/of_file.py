"""Gates of any ONNX file: what each multiplies its map by, over samples from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sesurgery.diagnostics import fail
from sesurgery.graph import Shape
from sesurgery.graph.gates import ChannelGate, channel_gates, names_of
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.observe import observe
from sesurgery.onnxgraph.shapes import image_input, image_shape, takes_channels_last
from sesurgery.pipeline.build_engine.calibration import samples_in, samples_of_file
from sesurgery.pipeline.gates.gates import GateResult
from sesurgery.pipeline.inspect import open_named
from sesurgery.verification.gate_values import gate_of
from sesurgery.verification.gates import UNLABELLED, measure, seen_end

OPTION = "--inputs FILE.npz"


def gates_of_file(file: Path, given: Path) -> GateResult:
    """Gates over the samples in `given`, a .npz file with an array for each input and, if known, `labels` [N].

    Sizes that the file leaves open are those of the samples. Gates end at 1 unless a sample shows more. Raises SE402
    where a file is not there or has no gate, and SE606 where samples do not fit.
    """
    model = onnx_io.load(file)
    feeds, labels = samples_of_file(model, given, OPTION)
    found = gates_in(file, model, feeds[0])
    flow = Dataflow(model)
    there = set(flow.inputs) | set(flow.producer)
    seen = [gate for gate in found if {gate.mul.name, gate.value.name} <= there]
    read = [name for gate in seen for name in (gate.value.name, gate.mul.name)]
    parts: list[list[NDArray[np.float64] | None]] = [[] for _ in seen]
    for made in observe(model, read, feeds, flow):
        for gate, part in zip(seen, parts, strict=True):
            part.append(_observed(gate, made[gate.value.name], made[gate.mul.name]))
    classes = labels if labels is not None else np.zeros(samples_in(feeds), np.int64)
    names = {int(label): UNLABELLED if labels is None else str(label) for label in np.unique(classes)}
    called = names_of(found)
    blocks, left = [], [called[gate.mul.name] for gate in found if gate not in seen]
    for gate, each in zip(seen, parts, strict=True):
        key = called[gate.mul.name]
        known = [part for part in each if part is not None]
        values = np.concatenate(known) if len(known) == len(each) else np.empty(0)
        # A network may turn one sample into many: lines of text, say. Their gates have no label.
        if len(values) != len(classes) or np.isnan(values).all():
            left.append(key)
            continue
        blocks.append(measure(key, values, classes, names, seen_end(values)))
    return GateResult(file, tuple(names.values()), tuple(blocks), tuple(left))


def gates_in(file: Path, model: onnx.ModelProto, feed: Mapping[str, NDArray[np.generic]]) -> list[ChannelGate]:
    """Every channel gate of a file, which `model` is; sizes that it leaves open are those of the feed. Raises SE402."""
    found = channel_gates(open_named(str(file), _shape(model, feed)).network.view)
    if not found:
        raise fail("SE402", f"{file.as_posix()} has no channel gate", "`sesurgery inspect FILE` shows what it has")
    return found


def _shape(model: onnx.ModelProto, feed: Mapping[str, NDArray[np.generic]]) -> Shape | None:
    """(channels, height, width) of the image in a feed where the file does not say them."""
    sizes = feed[image_input(model).name].shape[1:]
    if image_shape(model) is not None or len(sizes) != 3:
        return None
    first, second, third = sizes
    return (third, first, second) if takes_channels_last(model) else (first, second, third)


def _observed(gate: ChannelGate, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.float64] | None:
    """The gate [n, C]; None where it differs over the map. Channels stand where the graph's view says how many."""
    channels = gate.value.shape[0] if gate.value.shape else None
    if x.ndim != 4 or x.shape != y.shape or channels not in (x.shape[1], x.shape[3]):
        return None
    if channels != x.shape[1]:
        x, y = np.moveaxis(x, 3, 1), np.moveaxis(y, 3, 1)
    tensors = [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in (x, y)]
    made = gate_of(*tensors)
    return None if made is None else made.double().numpy()
