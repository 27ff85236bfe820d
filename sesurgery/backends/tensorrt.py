"""NVIDIA TensorRT: builds for the GPU at hand by timing kernels on it, so it needs one for building and running."""

from __future__ import annotations

from sesurgery.backends._nvidia.backend import NvidiaBackend


class TensorRT(NvidiaBackend):
    """`tensorrt` 10.12 (strong typing, the tensor-name API) to 11.x."""

    module = "tensorrt"
    title = "TensorRT"
    install = "pip install 'sesurgery[tensorrt]'"
    versions = ((10, 12), (12, 0))
    builds_without_gpu = False
    # Those that move and remove work. `gate_epilogue` answers a habit of one compiler, measured on TensorRT-RTX alone.
    passes = ("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout")
