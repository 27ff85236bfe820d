"""torch's own compiler, ahead of time: an engine is a `.pt2` package of AOTInductor, built from the network itself.

The other backends read an ONNX file. This one takes the trained network, as nothing is gained by writing torch's graph
down in another language and reading it back: what it is given came from a run. The package holds compiled code and the
weights, runs without tracing anything, and is for the kind of device it was compiled on.

On the CPU weights are frozen into the code (their layout is chosen, and convolution, sum and ReLU become one call), and
maps lie channels-last: `python benchmarks/gpu/latency.py --device cpu` has what each brings. How many threads run is
decided when it runs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sesurgery.artifacts import cpu_name
from sesurgery.backends.base import Backend, BuildOptions, BuildReport, Capability, Progress, Runner
from sesurgery.diagnostics import fail
from sesurgery.spec.engines import Precision

if TYPE_CHECKING:
    from torch import nn

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Inductor(Backend):
    """`target: auto` is the GPU if there is one; `autotune` times kernels against one another while it builds."""

    suffix: ClassVar[str] = ".pt2"
    # A package holds a shared library, which is loaded into this process.
    native: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")
    # docs/free_se.md has what it brings, and why squeeze_hoist_spatial is not among them.
    passes: ClassVar[tuple[str, ...]] = ("squeeze_hoist",)

    target: Device = "auto"
    autotune: bool = False

    def probe(self) -> Capability:
        missing = _no_cuda() if self.target == "cuda" else None
        compiler = os.environ.get("CXX", "g++")
        builds = missing
        if builds is None and shutil.which(compiler) is None:
            builds = f"it compiles C++, and {compiler} is not on this machine"
        return Capability(_version(), builds, missing, "install a C++ compiler (g++), or name one in CXX")

    def device(self) -> str:
        import torch

        return torch.cuda.get_device_name() if self._kind() == "cuda" else cpu_name()

    def build_network(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        out: Path,
        options: BuildOptions,
        progress: Progress | None = None,
    ) -> BuildReport:
        from sesurgery.backends.inductor_package.build import CompileRequest, compile_package

        ability = self.probe()
        if ability.builds is not None:
            raise fail("SE603", f"inductor cannot build engines here: {ability.builds}", ability.remedy)
        request = CompileRequest(network, shape, options, self._kind(), self.device(), self.autotune)
        return compile_package(request, out, progress)

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        from sesurgery.backends.inductor_package.runner import Package

        return Package(engine, threads)

    def _kind(self) -> Literal["cpu", "cuda"]:
        if self.target == "auto":
            return "cuda" if _no_cuda() is None else "cpu"
        return self.target


def _version() -> str:
    """torch's version with its build, `2.11.0+cu128`: the package's metadata leave the build out, and torch is slow."""
    found = importlib.util.find_spec("torch")
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    if file is None or not file.is_file():
        return importlib.metadata.version("torch")
    return str(runpy.run_path(str(file))["__version__"])


def _no_cuda() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no CUDA device"
