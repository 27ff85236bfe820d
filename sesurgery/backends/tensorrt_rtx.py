"""NVIDIA TensorRT for RTX: builds ahead of time on any machine; the GPU's driver compiles the rest when it loads.

The targets are named even where a GPU is at hand, so that an engine depends on its ONNX file and not on the machine
that built it. They are the documented default: Ampere, Ada, Blackwell, and what comes after them. Turing, 7.5, is left
out: the compiler has no fp32 matrix product for it, so naming it fails every fp32 build. Hopper is not on the list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sesurgery.backends.nvidia.backend import NvidiaBackend
from sesurgery.backends.nvidia.settings import Settings

Target = Literal["SM75", "SM80", "SM86", "SM89", "SM120", "SM121", "CURRENT"]


@dataclass(frozen=True)
class TensorRTForRTX(NvidiaBackend):
    """`tensorrt_rtx`, whose Python API is TensorRT's. It has no timing cache and no hardware compatibility levels."""

    module = "tensorrt_rtx"
    title = "TensorRT-RTX"
    install = "pip install 'sesurgery[tensorrt-rtx]'"
    versions = ((1, 7), (2, 0))
    builds_without_gpu = True
    # docs/free_se.md has what each of them brings.
    passes = (
        *("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout", "gate_epilogue"),
        "gate_weights",
    )

    capabilities: tuple[Target, ...] = ("SM80", "SM86", "SM89", "SM120")

    def settings(self) -> Settings:
        return replace(super().settings(), capabilities=self.capabilities)

    def device(self) -> str:
        if not self.capabilities or "CURRENT" in self.capabilities:
            return super().device()
        numbers = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in self.capabilities)
        return f"NVIDIA GPUs of compute capability {numbers}"
