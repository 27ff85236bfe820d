"""Engines by name."""

from sesurgery.backends.base import Backend
from sesurgery.catalog import Catalog

BACKENDS = Catalog("sesurgery.backends", Backend, "backend")  # type: ignore[type-abstract]


def runs_here(name: str) -> bool:
    """Whether a backend's engines can run on this machine."""
    backend: Backend = BACKENDS.load(name)()
    return backend.probe().runs is None


def gpu() -> str | None:
    """The GPU that a CUDA driver lists, with its capability and the driver's CUDA version; None if there is none."""
    # By the driver's library and not by torch, which takes seconds to import.
    from sesurgery.backends.nvidia import libcuda

    return libcuda.device_name() if libcuda.obstacle() is None else None
