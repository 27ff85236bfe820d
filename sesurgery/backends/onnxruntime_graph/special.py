"""An optimised engine gets graphs of its own for the batches it is for, where gates scale in blocks."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime

from sesurgery import temporaries
from sesurgery.backends.base import BatchRange
from sesurgery.backends.onnxruntime_graph import blocked, by_batch
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.batch import with_batch

TOLERANCE = 1e-5
"""How far the outputs of two graphs may be apart, relative to the largest."""
LEFT = "gates are scaled as the optimiser does it"


def improve(engine: Path, source: Path, options: onnxruntime.SessionOptions, batch: BatchRange) -> tuple[str, ...]:
    """Rewrite an optimised engine in place, where its source has gates to scale; what there is to say of it.

    A file with an open batch gets graphs for single samples and for the batch that it is tuned for; an engine for one
    batch alone has that graph alone, as choosing between two costs a tenth of a millisecond. `options` are those
    of a session that optimises; this one writes its graph elsewhere.
    """

    def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
        with temporaries.folder(engine) as folder:
            target = folder / "special.onnx"
            options.optimized_model_filepath = str(target)
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return onnx.load(target)

    model = onnx_io.load(source)
    general = onnx.load(engine)
    batches = _batches(model)
    if len(batches) > 1:
        # One input does not tell what another one has.
        return ()
    fixed = next((size for size in batches if isinstance(size, int)), 0)
    if batch.minimum == batch.maximum:
        fixed = fixed or batch.optimum
    special: dict[int, onnx.ModelProto] = {}
    for size in [fixed] if fixed else sorted({1, batch.optimum} if batch.minimum == 1 else {batch.optimum}):
        found = blocked.optimised(model, optimise, size)
        if isinstance(found, str):
            return ()
        fed = _numerics.feeds(with_batch(model, size))
        difference = _numerics.difference(_numerics.outputs(general, fed), _numerics.outputs(found, fed))
        if not difference <= TOLERANCE:
            return (f"{LEFT}: in blocks, outputs differ by {difference:.2g}",)
        special[size] = found
    if fixed:
        onnx.save(special[fixed], engine)
        return ("gates are scaled in blocks of channels",)
    whole = by_batch.joined(special, general)
    if whole.ByteSize() > onnx_io.LIMIT:
        return (f"{LEFT}: several graphs would be larger than 2 GiB",)
    onnx.save(whole, engine)
    sizes = " and ".join(f"a batch of {size}" for size in special)
    return (f"{sizes} has a graph of its own, in which gates are scaled in blocks of channels",)


def _batches(model: onnx.ModelProto) -> set[int | str]:
    """The first dimensions of all inputs, by name where they are open."""
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name not in weights]
    return {dims[0].dim_value if dims[0].HasField("dim_value") else dims[0].dim_param for dims in shapes if dims}
