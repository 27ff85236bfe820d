"""The driver library through ctypes: what is installed, and the few calls that pycuda lacks."""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char_p, c_int, c_uint, c_ulonglong, c_void_p

from sesurgery.diagnostics import fail

NAME = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do, copies for one, does not break a capture."""
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*"""


def obstacle() -> str | None:
    """Why CUDA cannot be used here, or None if it can; never raises."""
    try:
        library = ctypes.CDLL(NAME)
    except OSError:
        return "no CUDA driver: libcuda is not on this machine"
    try:
        if status := library.cuInit(c_uint(0)):
            return f"no CUDA device: {words(library, status)}"
        count = c_int(0)
        if status := library.cuDeviceGetCount(byref(count)):
            return f"no CUDA device: {words(library, status)}"
        return None if count.value else "no CUDA device: the driver lists none"
    except Exception as error:  # a broken driver is a reason like any other
        return f"no CUDA driver: {error}"


def device_name() -> str:
    """The GPU in use, with its compute capability and the driver's CUDA version."""
    call("cuInit", c_uint(0))
    number, name, version = current_device(), ctypes.create_string_buffer(256), c_int(0)
    call("cuDeviceGetName", name, c_int(len(name)), c_int(number))
    capability = []
    for attribute in (MAJOR, MINOR):
        value = c_int(0)
        call("cuDeviceGetAttribute", byref(value), c_int(attribute), c_int(number))
        capability.append(str(value.value))
    call("cuDriverGetVersion", byref(version))
    number_of_cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return f"{name.value.decode()}, sm_{''.join(capability)}, CUDA {number_of_cuda}"


def current_device() -> int:
    """The number of the device whose context the calling thread uses; 0 where it uses none."""
    context, device = c_void_p(), c_int(0)
    call("cuCtxGetCurrent", byref(context))
    if context.value:
        call("cuCtxGetDevice", byref(device))
    return device.value


def begin_capture(stream: int) -> None:
    """Start capturing work on the stream instead of running it."""
    call("cuStreamBeginCapture_v2", c_void_p(stream), c_int(THREAD_LOCAL))


def end_capture(stream: int) -> int:
    """The captured graph; zero if the capture failed."""
    graph = c_void_p()
    call("cuStreamEndCapture", c_void_p(stream), byref(graph))
    return graph.value or 0


def instantiate(graph: int) -> int:
    """A launchable form of a graph; the graph itself is freed in any case."""
    executable = c_void_p()
    try:
        call("cuGraphInstantiateWithFlags", byref(executable), c_void_p(graph), c_ulonglong(0))
    finally:
        call("cuGraphDestroy", c_void_p(graph))
    return executable.value or 0


def launch(executable: int, stream: int) -> None:
    """Put a graph on a stream."""
    call("cuGraphLaunch", c_void_p(executable), c_void_p(stream))


def forget_graph(executable: int) -> None:
    """Free an instantiated graph."""
    call("cuGraphExecDestroy", c_void_p(executable))


def wait(stream: int) -> None:
    """Wait until all work on a stream has finished."""
    call("cuStreamSynchronize", c_void_p(stream))


def call(function: str, *arguments: object) -> None:
    """Call the driver; raises SE603 with its words where it fails."""
    try:
        library = ctypes.CDLL(NAME)
    except OSError:
        raise fail("SE603", f"{function}: no CUDA driver: libcuda is not on this machine") from None
    if status := getattr(library, function)(*arguments):
        raise fail("SE603", f"{function}: {words(library, status)}")


def words(library: ctypes.CDLL, status: int) -> str:
    """The driver's text for a status."""
    text, name = c_char_p(), c_char_p()
    library.cuGetErrorString(c_int(status), byref(text))
    library.cuGetErrorName(c_int(status), byref(name))
    return f"{(text.value or b'unknown').decode()} ({(name.value or str(status).encode()).decode()})"
