"""Arrays that are on the GPU already, by `__cuda_array_interface__` or DLPack: their maker need not be imported."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from sesurgery.backends.inputs.feeds import OnDevice
from sesurgery.diagnostics import fail

CUDA = (2, 3, 13)
"""DLPack's device types of memory that a kernel can read: on the GPU, pinned on the host, managed."""
KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
"""DLPack's type codes, as numpy calls them."""
DEFAULT_STREAM = 1


class _Tensor(ctypes.Structure):
    """DLTensor"""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int),
        ("device_id", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def on_device(name: str, given: Any) -> OnDevice | None:
    """The GPU array behind an object, None if it is none; raises SE606 if it is not in C layout."""
    if isinstance(given, np.ndarray):
        return None
    interface = getattr(given, "__cuda_array_interface__", None)
    if interface is not None:
        dtype = np.dtype(interface["typestr"])
        shape = tuple(interface["shape"])
        _require_c_layout(name, shape, interface.get("strides"), dtype.itemsize)
        return OnDevice(shape, dtype, interface["data"][0], interface.get("stream"), given)
    if hasattr(given, "__dlpack__") and given.__dlpack_device__()[0] in CUDA:
        # Asked for on the default stream, its maker sees to it that the data is there once that stream has come so far.
        return _from_dlpack(name, given.__dlpack__(stream=DEFAULT_STREAM))
    return None


def _from_dlpack(name: str, capsule: object) -> OnDevice:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # Not renamed to "used_dltensor": the capsule still owns the tensor, and gives it back when it goes.
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    if tensor.code not in KINDS or tensor.lanes != 1:
        raise fail("SE606", f"input {name!r} has a type that numpy does not have")
    dtype = np.dtype(f"{KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(step * dtype.itemsize for step in tensor.strides[: tensor.ndim]) if tensor.strides else None
    _require_c_layout(name, shape, strides, dtype.itemsize)
    return OnDevice(shape, dtype, (tensor.data or 0) + tensor.byte_offset, DEFAULT_STREAM, capsule)


def _require_c_layout(name: str, shape: tuple[int, ...], strides: Any, itemsize: int) -> None:
    if strides is None:
        return
    expected = itemsize
    for size, step in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if size != 1 and step != expected:
            raise fail("SE606", f"input {name!r} is not in C layout on the GPU", "make it contiguous first")
        expected *= size
