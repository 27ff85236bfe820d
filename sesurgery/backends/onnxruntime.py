"""ONNX Runtime: on the CPU, an engine is its own optimised graph, written once and run as it is.

Optimising at load or loading the optimised graph gives the same outputs bit for bit and the same speed (medians of 100
runs within 5 % of each other on SE-ResNets, batch 1 and 8, and the order changes from run to run); the file form shows
what will run, and loads faster. It holds operators of this processor's kind (blocked layouts), which is why an engine's
manifest records the device.

With another provider an engine is the ONNX file as it is, in one piece: what a GPU provider makes of it (compiled
nodes, for TensorRT) cannot be written to a file, so it is optimised at every load. Above 2 GiB the weights of either
stand beside the engine, in NAME.onnx.data. ONNX Runtime falls back to the CPU
where a provider does not start, and logs a warning that nobody reads; here that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sesurgery.backends.base import (
    Array,
    Backend,
    BuildOptions,
    BuildReport,
    Capability,
    LayerRun,
    Progress,
    Runner,
)
from sesurgery.backends.onnxruntime_graph.providers import PACKAGES, PROVIDERS
from sesurgery.diagnostics import fail

if TYPE_CHECKING:
    from onnx import ModelProto

    from sesurgery.backends.kernels.operators import Graph


@dataclass(frozen=True)
class OnnxRuntime(Backend):
    """Runs everywhere that onnxruntime does; an fp16 graph is computed in fp32 by its CPU kernels.

    `provider` is who computes: `cpu`, or `cuda` or `tensorrt` with an NVIDIA GPU and the package onnxruntime-gpu.
    """

    suffix = ".onnx"
    # Its CPU provider has no convolution in bf16.
    precisions = ("fp32", "fp16", "int8")
    # On x86 its integer convolutions take unsigned values alone; of signed ones it computes nearly all in fp32.
    int8_activations = "uint8"

    # docs/free_se.md has what each brings; the scaling itself is put right while it builds.
    passes = ("linear_to_conv", "hard_sigmoid", "squeeze_hoist", "squeeze_pool")
    lowered = ("fp32", "int8")
    rewrites = ("fp32",)

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"

    def probe(self) -> Capability:
        import onnxruntime

        known = onnxruntime.get_available_providers()
        notes = (f"providers in this onnxruntime: {', '.join(name for name in PROVIDERS if _first(name) in known)}",)
        if _first(self.provider) in known:
            return Capability(onnxruntime.__version__, builds=None, runs=None, notes=notes)
        reason = f"this onnxruntime has no {_first(self.provider)} (it has {', '.join(known)})"
        # A file can be checked and carried to a machine that has the provider.
        remedy = f"pip install {PACKAGES[self.provider]}, in the place of onnxruntime"
        return Capability(onnxruntime.__version__, builds=None, runs=reason, remedy=remedy, notes=notes)

    def beside(self, engine: Path) -> tuple[Path, ...]:
        from sesurgery.onnxgraph import io as onnx_io

        return onnx_io.beside(engine)

    def build(self, onnx: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildReport:
        from sesurgery.backends.onnxruntime_graph.build import build

        rewritten = options.precision in self.rewrites and not options.as_exported
        return build(onnx, out, options, cpu=self.provider == "cpu", rewritten=rewritten, progress=progress)

    def layer_runs(
        self, engine: Path, feeds: Mapping[str, Array], runs: int, threads: int | None = None
    ) -> Mapping[str, LayerRun]:
        from sesurgery.backends.onnxruntime_graph.profile import layer_runs

        return layer_runs(engine, feeds, runs, threads)

    def operators(self, engine: Path, source: ModelProto | None = None) -> tuple[Graph, ...] | None:
        from sesurgery.backends.onnxruntime_graph import operators

        # What another provider makes of a file is not in the engine.
        return operators.read(engine, source) if self.provider == "cpu" else None

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        from sesurgery.backends.onnxruntime_graph.session import Session

        ability = self.probe()
        if ability.runs is not None:
            raise fail("SE603", f"ONNX Runtime cannot run {engine} here: {ability.runs}", ability.remedy)
        return Session(engine, threads, PROVIDERS[self.provider])


def _first(provider: str) -> str:
    return PROVIDERS[provider][0]
