"""Loading and saving ONNX files: the only place that does, so that what goes wrong with files is put right once."""

from __future__ import annotations

from pathlib import Path

import onnx

from sesurgery.artifacts import writing
from sesurgery.diagnostics import fail

# One protobuf message holds at most 2 GiB; above that the weights stand in a file beside it.
_LIMIT = 2 * 1024**3 - 1


def load(path: Path) -> onnx.ModelProto:
    """A model that the checker accepts, external data read from its own folder; raises SE602 otherwise."""
    if not path.is_file():
        raise fail("SE402", f"{path} is not there", "export it first: `sesurgery export`")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise fail("SE602", f"{path} is not a valid ONNX file: {text[0] if text else type(error).__name__}") from error
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model as one file, atomically, once the checker accepts it; raises SE602 otherwise."""
    if model.ByteSize() > _LIMIT:
        raise fail("SE602", f"the model has {model.ByteSize() / 1e9:.1f} GB, one ONNX file holds 2 GiB at most")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise fail("SE602", f"the model is not valid and was not written: {error}") from error
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
