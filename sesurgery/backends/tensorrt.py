"""NVIDIA TensorRT: builds for the GPU at hand by timing kernels on it, so it needs one for building and running."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sesurgery.backends.nvidia import cuda
from sesurgery.backends.nvidia.backend import NvidiaBackend
from sesurgery.backends.nvidia.settings import Settings
from sesurgery.backends.nvidia.timing_cache import TimingCache

HARDWARE = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True)
class TensorRT(NvidiaBackend):
    """`tensorrt` 10.12 (strong typing, the tensor-name API) to 11.x."""

    module = "tensorrt"
    title = "TensorRT"
    install = "pip install 'sesurgery[tensorrt]'"
    versions = ((10, 12), (12, 0))
    builds_without_gpu = False
    # Those that move and remove work. `gate_epilogue` answers a habit of one compiler, measured on TensorRT-RTX alone.
    passes = ("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout")

    hardware: Literal["ampere-plus", "same-capability"] | None = None
    timing_cache: bool = True

    def settings(self) -> Settings:
        return replace(super().settings(), hardware=HARDWARE[self.hardware] if self.hardware else None)

    def cache(self, engines: Path) -> TimingCache | None:
        if not self.timing_cache:
            return None
        return TimingCache(engines, f"{self.module}-{self.library().__version__}", cuda.device_name(), self.settings())
