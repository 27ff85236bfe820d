"""pycuda.driver: as in src/wrapper/wrap_cudadrv.cpp of 2026.1."""

import ctypes

import numpy as np

_cuda = ctypes.CDLL("libcuda.so.1")


class Error(Exception):
    pass


class LogicError(Error):
    pass


class MemoryError(Error):  # noqa: A001  (pycuda calls it so)
    pass


def _call(function, *arguments):
    if status := getattr(_cuda, function)(*arguments):
        text = ctypes.c_char_p()
        _cuda.cuGetErrorString(status, ctypes.byref(text))
        raise (MemoryError if status == 2 else LogicError)(f"{function} failed: {text.value.decode()}")


def _made(function, *arguments):
    made = ctypes.c_void_p()
    _call(function, ctypes.byref(made), *arguments)
    return made.value


def init(flags=0):
    _call("cuInit", flags)


class Context:
    _current = None

    def __init__(self, handle):
        self._handle = handle

    def push(self):
        _call("cuCtxPushCurrent_v2", ctypes.c_void_p(self._handle))
        Context._current = self

    @staticmethod
    def pop():
        _call("cuCtxPopCurrent_v2", None)
        Context._current = None

    @staticmethod
    def get_current():
        return Context._current if _made("cuCtxGetCurrent") else None


class Device:
    def __init__(self, number):
        self._number = number

    def retain_primary_context(self):
        return Context(_made("cuDevicePrimaryCtxRetain", self._number))


class DeviceAllocation:
    def __init__(self, address):
        self._address = address

    def __int__(self):
        return self._address

    def free(self):
        address, self._address = self._address, None
        if address is None:
            raise LogicError("device_allocation::free failed")
        _call("cuMemFree_v2", ctypes.c_void_p(address))


def mem_alloc(bytes):  # noqa: A002
    return DeviceAllocation(_made("cuMemAlloc_v2", ctypes.c_size_t(bytes)))


class PagelockedHostAllocation:
    def __init__(self, address, size):
        self._address = address
        self.__array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}

    def free(self):
        _call("cuMemFreeHost", ctypes.c_void_p(self._address))


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    assert dtype is np.uint8
    assert isinstance(shape, int)
    return np.asarray(PagelockedHostAllocation(_made("cuMemHostAlloc", ctypes.c_size_t(shape), mem_flags), shape))


class Stream:
    def __init__(self, flags=0):
        self.handle = _made("cuStreamCreate", flags)

    def synchronize(self):
        _call("cuStreamSynchronize", ctypes.c_void_p(self.handle))

    def __del__(self):
        _call("cuStreamDestroy_v2", ctypes.c_void_p(self.handle))


class Event:
    def __init__(self, flags=0):
        self._handle = _made("cuEventCreate", flags)

    def record(self, stream=None):
        _call("cuEventRecord", ctypes.c_void_p(self._handle), ctypes.c_void_p(stream.handle))
        return self

    def time_till(self, other):
        found = ctypes.c_float()
        _call("cuEventElapsedTime", ctypes.byref(found), ctypes.c_void_p(self._handle), ctypes.c_void_p(other._handle))
        return found.value

    def __del__(self):
        _call("cuEventDestroy_v2", ctypes.c_void_p(self._handle))


def memcpy_htod_async(dest, src, stream=None):
    place = ctypes.c_void_p(src.ctypes.data)
    _call(
        "cuMemcpyHtoDAsync_v2",
        ctypes.c_void_p(int(dest)),
        place,
        ctypes.c_size_t(src.nbytes),
        ctypes.c_void_p(stream.handle),
    )


def memcpy_dtoh_async(dest, src, stream=None):
    place = ctypes.c_void_p(dest.ctypes.data)
    _call(
        "cuMemcpyDtoHAsync_v2",
        place,
        ctypes.c_void_p(int(src)),
        ctypes.c_size_t(dest.nbytes),
        ctypes.c_void_p(stream.handle),
    )


def memcpy_dtod_async(dest, src, size, stream=None):
    ends = (ctypes.c_void_p(int(dest)), ctypes.c_void_p(int(src)))
    _call("cuMemcpyDtoDAsync_v2", *ends, ctypes.c_size_t(size), ctypes.c_void_p(stream.handle))
