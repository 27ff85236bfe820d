"""Which package talks to the GPU here, and whether there is one."""

from __future__ import annotations

import importlib
import importlib.util

from sesurgery.backends.nvidia import libcuda, with_bindings, with_pycuda
from sesurgery.backends.nvidia.device import Device
from sesurgery.backends.nvidia.libcuda import device_name

__all__ = ["REMEDY", "device_name", "obstacle", "open_device"]

REMEDY = "an NVIDIA GPU with its driver, and: pip install cuda-bindings"
ADAPTERS = {with_pycuda.MODULE: with_pycuda.PycudaDevice, with_bindings.MODULE: with_bindings.BindingsDevice}
"""By the module that each needs, in the order in which they are taken."""


def obstacle() -> str | None:
    """Why CUDA cannot be used here, or None if it can; never raises."""
    if (reason := libcuda.obstacle()) is not None:
        return reason
    reasons = [reason for module in ADAPTERS if (reason := _missing(module)) is not None]
    return None if len(reasons) < len(ADAPTERS) else f"nothing talks to the GPU: {'; '.join(reasons)}"


def open_device() -> Device:
    """The GPU, through pycuda where it is installed and cuda-bindings elsewhere; raises SE603 if CUDA fails."""
    for module, adapter in ADAPTERS.items():
        if _missing(module) is None:
            return adapter()
    # The last one says best what is wrong.
    return with_bindings.BindingsDevice()


def _missing(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # not installed, or built for another driver: ImportError, OSError, RuntimeError
        return f"{module.split('.')[0]} is not available ({error})"
    return None
