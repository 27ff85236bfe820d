"""An optimised engine gets a second graph for a single sample, where gates scale in blocks, if its numbers agree."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from sesurgery.backends._onnxruntime import blocked, by_batch
from sesurgery.lowering import _numerics
from sesurgery.lowering._batch import with_one_sample
from sesurgery.models import onnx_io

TOLERANCE = 1e-5
"""How far the two graphs may be apart on one sample, relative to the largest output."""


def improve(engine: Path, source: Path, options: onnxruntime.SessionOptions) -> tuple[str, ...]:
    """Rewrite an optimised engine in place, where its source has gates to scale; what there is to say of it.

    `options` are those of a session that optimises; this one writes its graph elsewhere.
    """

    def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory(dir=engine.parent) as folder:
            target = Path(folder) / "single.onnx"
            options.optimized_model_filepath = str(target)
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return onnx.load(target)

    model = onnx_io.load(source)
    single = blocked.optimised(model, optimise)
    if isinstance(single, str):
        return ()
    general = onnx.load(engine)
    fed = _numerics.feeds(with_one_sample(model))
    difference = _numerics.difference(_numerics.outputs(general, fed), _numerics.outputs(single, fed))
    if not difference <= TOLERANCE:
        return (f"gates are scaled as the optimiser does it: in blocks, outputs differ by {difference:.2g}",)
    if all(_batch(value) == 1 for value in single.graph.input) and _batch(general.graph.input[0]) == 1:
        onnx.save(single, engine)
        return ("gates are scaled in blocks of channels",)
    whole = by_batch.joined(single, general)
    if whole.ByteSize() > onnx_io.LIMIT:
        return ("gates are scaled as the optimiser does it: two graphs would be larger than 2 GiB",)
    onnx.save(whole, engine)
    return ("a graph of its own serves single samples: there gates are scaled in blocks of channels",)


def _batch(value: onnx.ValueInfoProto) -> int:
    """The first dimension, 0 where it is open."""
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value if dims else 1
