"""Whether the data of an ONNX file's tensors are as many as their shapes and types ask for.

Neither onnx's checker nor its readers look before they read; ONNX Runtime refuses such a file.
"""

from __future__ import annotations

from math import prod

import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import _get_all_tensors, uses_external_data

BITS = {4: (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)}
"""Types of which several share a byte."""


def require_whole(model: onnx.ModelProto) -> None:
    """Raise ValueError for a tensor with more or less data than it asks for; data in other files are not read."""
    for tensor in _get_all_tensors(model):
        if uses_external_data(tensor) or tensor.data_type == TensorProto.STRING:
            continue
        if not tensor.HasField("raw_data"):
            # These are few and small; the field that holds them depends on the type.
            numpy_helper.to_array(tensor)
            continue
        asked = bytes_of(tensor)
        if asked is not None and asked != len(tensor.raw_data):
            kind = TensorProto.DataType.Name(tensor.data_type)
            shape = "x".join(map(str, tensor.dims)) or "scalar"
            found = len(tensor.raw_data)
            raise ValueError(f"tensor {tensor.name!r} of {shape} {kind} needs {asked} bytes of data and has {found}")


def bytes_of(tensor: TensorProto) -> int | None:
    """What a tensor's data take; None for a type that is not known."""
    count: int = prod(tensor.dims)
    for bits, kinds in BITS.items():
        if tensor.data_type in kinds:
            return -(-count * bits // 8)
    try:
        item: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        return None
    return count * item
