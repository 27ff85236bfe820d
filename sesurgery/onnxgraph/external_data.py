"""Weights outside an ONNX file: not loaded while the file is changed, and copied in pieces when it is written.

A model that is loaded this way names each data file by its full path. Only `inlined` and `write` read the files, so
changing a model needs memory for its graph but not for its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto
from onnx.external_data_helper import _get_all_tensors, load_external_data_for_tensor, uses_external_data

# Shapes, axes and scales are read while planning; what is larger is a weight.
SMALL = 1 << 16
_LEAST = 1024
_ALIGNED = 4096
_PIECE = 1 << 24


def refer(model: onnx.ModelProto, folder: Path) -> None:
    """Make the model name its data files by full path, and read small values; ValueError if a file is too short."""
    for tensor in _outside(model):
        path, offset, length = _place(tensor)
        if length <= SMALL:
            load_external_data_for_tensor(tensor, str(folder))
            continue
        file = (folder / path).resolve()
        if offset < 0 or offset + length > file.stat().st_size:
            raise ValueError(f"the data of {tensor.name!r} lie beyond the end of {path}")
        _set_place(tensor, str(file), offset, length)


def complete(model: onnx.ModelProto) -> None:
    """Set the length of each weight's data if a file does not give it: the number of bytes for its shape.

    Without a length, readers take the rest of the data file, including other weights.
    """
    for tensor in _outside(model):
        if not any(entry.key == "length" for entry in tensor.external_data):
            _set_place(tensor, *_place(tensor))


def size(model: onnx.ModelProto) -> int:
    """Bytes of the model and of its external data."""
    own: int = model.ByteSize()
    return own + sum(_place(tensor)[2] for tensor in _outside(model))


def refers(model: onnx.ModelProto) -> bool:
    """Whether data of the model lie in other files."""
    return next(_outside(model), None) is not None


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its external data loaded; the model itself if it has none."""
    if not refers(model):
        return model
    done = onnx.ModelProto()
    done.CopyFrom(model)
    for tensor in _outside(done):
        path, offset, length = _place(tensor)
        with open(path, "rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return done


def write(model: onnx.ModelProto, data: BinaryIO, location: str) -> None:
    """Move the model's weights into one open file; afterwards the model refers to it as `location`."""
    for tensor in _get_all_tensors(model):
        outside = uses_external_data(tensor)
        if not outside and len(tensor.raw_data) < _LEAST:
            continue
        data.write(b"\0" * (-data.tell() % _ALIGNED))
        at = data.tell()
        if outside:
            _copy(*_place(tensor), data)
        else:
            data.write(tensor.raw_data)
            tensor.ClearField("raw_data")
        _set_place(tensor, location, at, data.tell() - at)


def relocate(model: onnx.ModelProto, location: str) -> None:
    """Make the model refer to `location` for all its external data."""
    for tensor in _outside(model):
        _, offset, length = _place(tensor)
        _set_place(tensor, location, offset, length)


def _outside(model: onnx.ModelProto) -> Iterator[TensorProto]:
    return (tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor))


def _place(tensor: TensorProto) -> tuple[str, int, int]:
    """The file, the offset and the number of bytes."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    bits = round(8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    if tensor.data_type in _PACKED:
        bits = _PACKED[tensor.data_type]
    least = (prod(tensor.dims) * bits + 7) // 8
    length = int(said.get("length", least))
    if length != least:
        raise ValueError(f"the data of {tensor.name!r} have {length} bytes, but its shape needs {least}")
    return said.get("location", ""), int(said.get("offset", 0)), length


_PACKED = {
    getattr(TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(TensorProto, name)
}


def _set_place(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _copy(path: str, offset: int, length: int, data: BinaryIO) -> None:
    with open(path, "rb") as stream:
        stream.seek(offset)
        while length > 0:
            piece = stream.read(min(length, _PIECE))
            if not piece:
                raise ValueError(f"{path} is shorter than the weights stored in it")
            data.write(piece)
            length -= len(piece)
