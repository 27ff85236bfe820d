"""From a network to a package: precision, layout, torch.export, AOTInductor."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from sesurgery import temporaries
from sesurgery.artifacts import writing
from sesurgery.backends.base import BuildOptions, BuildReport, Progress
from sesurgery.backends.inductor_package.quiet import quiet
from sesurgery.diagnostics import fail, first_line
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.layout import channels_last
from sesurgery.lowering.fx.precision import to_half
from sesurgery.networks.export import INPUT, OUTPUT
from sesurgery.spec.engines import Precision

HALVES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
WORDS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
CONVOLUTIONS = (graph.aten.conv2d.default, graph.aten.conv2d.padding)
STEPS = 3
ALLOWED: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}
"""Relative to the largest output; what sums in another order and halves that round elsewhere come to, with room."""
TINY = 1e-30


@dataclass(frozen=True)
class CompileRequest:
    """A network for inputs of `shape` (channels, height, width), and the device that it is compiled for."""

    network: nn.Module
    shape: tuple[int, ...]
    options: BuildOptions
    device: Literal["cpu", "cuda"]
    device_name: str
    autotune: bool

    @property
    def batches(self) -> tuple[int, int]:
        """The smallest and the largest batch."""
        return self.options.batch.minimum, self.options.batch.maximum


def compile_package(request: CompileRequest, out: Path, progress: Progress | None) -> BuildReport:
    """Write `out`; raises SE603 if the device lacks the precision, SE604 and SE605 as every backend does."""
    network, options = request.network, request.options
    if (lacking := lacks(options.precision, request.device)) is not None:
        raise fail("SE603", f"inductor cannot build {options.precision} here: {lacking}", "take another precision")
    tell = progress or (lambda what, done, total: None)
    started = time.perf_counter()
    tell("capturing the network", 0, STEPS)
    module = network if isinstance(network, fx.GraphModule) and _captured(network) else None
    module = module or graph.capture(network, request.shape, request.batches)
    half = HALVES.get(options.precision)
    kept = () if half is None else tuple(edit.reason for edit in to_half(module, half, options.keep_fp32))
    channels_last(module)
    module = module.to(request.device)
    tell("exporting", 1, STEPS)
    program = graph.export(module, request.shape, request.batches, request.device)
    convolutions = _convolutions(program)
    _prove(options.precision, convolutions)
    tell("compiling", 2, STEPS)
    with _package(program, out, _settings(request)) as package:
        _require_same(package, module, request)
    tell("compiling", STEPS, STEPS)
    return BuildReport(time.perf_counter() - started, convolutions, request.device_name, _notes(request), kept)


def lacks(precision: Precision, device: Literal["cpu", "cuda"]) -> str | None:
    """Why convolutions of this precision cannot run on the device, or would be computed in another one."""
    if precision == "fp32":
        return None
    if precision not in HALVES:
        return f"it has no {precision}"
    if device == "cuda":
        if precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
            return "bf16 begins with compute capability 8.0"
        return None
    if precision == "bf16" and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "this processor has neither AVX-512 BF16 nor AMX"
    if precision == "fp16" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return "this processor has no fp16 arithmetic (AVX-512 FP16 or AMX FP16)"
    return None


def _captured(module: fx.GraphModule) -> bool:
    return any(node.target in CONVOLUTIONS for node in module.graph.nodes)


def _settings(request: CompileRequest) -> dict[str, Any]:
    """Inductor's options."""
    known = {
        "device": request.device,
        "precision": request.options.precision,
        "shape": list(request.shape),
        "batch": list(request.batches),
    }
    config: dict[str, Any] = {
        "max_autotune": request.autotune,
        "aot_inductor.metadata": {"sesurgery": json.dumps(known), "names": json.dumps([INPUT, OUTPUT])},
    }
    if request.device == "cpu":
        # Without it the engine uses as many threads as the process that built it.
        config |= {"freezing": True, "cpp.dynamic_threads": True}
    return config


@contextlib.contextmanager
def _package(program: torch.export.ExportedProgram, out: Path, config: dict[str, Any]) -> Iterator[Path]:
    """Compile into a temporary file, which is renamed to `out` if the block ends without an error."""
    from torch._inductor import aoti_compile_and_package

    with writing(out) as temporary, temporaries.folder(out) as folder:
        package = folder / "engine.pt2"
        try:
            with quiet(), torch.no_grad():
                aoti_compile_and_package(program, package_path=str(package), inductor_configs=config)
        except Exception as error:  # whatever torch, the C++ compiler or triton raise
            raise fail("SE604", f"inductor cannot compile the network: {first_line(error)}") from error
        yield package
        shutil.move(package, temporary)


def _require_same(package: Path, module: nn.Module, request: CompileRequest) -> None:
    """Compare the package's outputs with those of the module it was compiled from; raises SE604 if they differ."""
    from torch._inductor import aoti_load_package

    with quiet():
        compiled = aoti_load_package(str(package))
    options, (smallest, largest) = request.options, request.batches
    generator = torch.Generator().manual_seed(0)
    for batch in sorted({smallest, options.batch.optimum, min(largest, smallest + 2)}):
        image = torch.randn(batch, *request.shape, generator=generator).to(request.device)
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            expected, found = module(image), compiled(image)
        gap = float((found - expected).abs().max() / expected.abs().max().clamp_min(TINY))
        if not gap <= ALLOWED[options.precision]:
            text = (
                f"the compiled network is not the one given: at batch {batch} its outputs differ by {gap:.2g} of "
                f"the largest, allowed are {ALLOWED[options.precision]:.2g}"
            )
            raise fail("SE604", text, "a defect of the compiler for this network: take another backend")


def _convolutions(program: torch.export.ExportedProgram) -> dict[str, int]:
    values = [node.meta["val"] for node in program.graph.nodes if node.target in CONVOLUTIONS]
    return dict(Counter(WORDS.get(value.dtype, str(value.dtype)) for value in values if isinstance(value, Tensor)))


def _prove(asked: Precision, convolutions: dict[str, int]) -> None:
    found = ", ".join(f"{count} {name}" for name, count in sorted(convolutions.items())) or "none at all"
    if not convolutions.get(asked) or (asked == "fp32" and set(convolutions) != {"fp32"}):
        text = f"expected {asked} convolutions in the network to compile, found: {found}"
        raise fail("SE605", text)


def _notes(request: CompileRequest) -> tuple[str, ...]:
    if request.device == "cuda" and request.options.precision == "fp32":
        return ("TF32 is off when it runs",)
    return ()
