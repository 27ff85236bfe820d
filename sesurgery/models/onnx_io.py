"""Loading and saving ONNX files: the only place that does, so that what goes wrong with files is put right once."""

from __future__ import annotations

from pathlib import Path

import onnx

from sesurgery.artifacts import writing
from sesurgery.diagnostics import fail

# One protobuf message holds at most 2 GiB; above that the weights stand in a file beside it.
LIMIT = 2 * 1024**3 - 1


def load(path: Path) -> onnx.ModelProto:
    """A model that the checker accepts, external data read from its own folder; raises SE602 otherwise."""
    if not path.is_file():
        raise fail("SE402", f"{path} is not there", "export it first: `sesurgery export`")
    try:
        model = onnx.load(path, load_external_data=False)
        _confined(model, path.parent)
        onnx.load_external_data_for_model(model, str(path.parent))
        # Names of domains, shapes and types, and that nothing is read before it is made.
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise fail("SE602", f"{path} is not a valid ONNX file: {text[0] if text else type(error).__name__}") from error
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, atomically, once the checker accepts it; raises SE602 otherwise.

    It is one file up to 2 GiB; above, the weights stand beside it in NAME.onnx.data.
    """
    if model.ByteSize() > LIMIT:
        _save_large(model, path)
        return
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise fail("SE602", f"the model is not valid and was not written: {error}") from error
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _save_large(model: onnx.ModelProto, path: Path) -> None:
    beside = onnx.ModelProto()
    beside.CopyFrom(model)
    data = path.with_name(path.name + ".data")
    with writing(path) as temporary:
        # The weights come first: a file whose weights are not there yet must never be seen.
        with writing(data) as weights:
            onnx.external_data_helper.convert_model_to_external_data(beside, location=weights.name)
            onnx.save(beside, temporary)
            try:
                onnx.checker.check_model(temporary, full_check=True)
            except Exception as error:
                raise fail("SE602", f"the model is not valid and was not written: {error}") from error
        for tensor in beside.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        temporary.write_bytes(beside.SerializeToString())


def _confined(model: onnx.ModelProto, folder: Path) -> None:
    """Raise ValueError where a weight lies outside the model's own folder, whatever links and dots lead there."""
    root = folder.resolve()
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if Path(location).is_absolute() or not (root / location).resolve().is_relative_to(root):
            raise ValueError(f"the data of {tensor.name!r} lie outside the model's folder: {location}")
