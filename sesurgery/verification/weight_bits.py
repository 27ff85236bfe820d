"""How many bits the weights of an int8 file take, and the proof on samples that kernels here are right with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx as onnx_library

from sesurgery.backends.base import Backend, BuildsFromOnnx
from sesurgery.diagnostics import fail
from sesurgery.lowering.precision.int8 import WeightBits
from sesurgery.verification.integer_kernels import EXPLAINED, Feeds, IntegerReport, compare_kernels

ANY_PROCESSOR = "the file is for any processor, and without VNNI, AMX or Arm's dot products pairs of products saturate"
ON_TRUST = "asked for; right only on processors with VNNI, AMX or Arm's dot products"


@dataclass(frozen=True)
class WeightBitsChoice:
    """Bits of weights, and the reason."""

    bits: WeightBits
    why: str

    def __str__(self) -> str:
        return f"weights in {self.bits} bits: {self.why}"


def choose(backend: Backend, asked: WeightBits | Literal["auto"]) -> WeightBitsChoice:
    """The bits asked for; by default 8 where the backend's target processors cannot saturate (`wide_sums`), else 7.

    It does not depend on the processor at hand: a file, and an engine with `--foreign`, goes to others.
    """
    if asked == "auto":
        wide = backend.wide_sums
        return WeightBitsChoice(7, ANY_PROCESSOR) if wide is None else WeightBitsChoice(8, wide)
    return WeightBitsChoice(asked, ON_TRUST if asked == 8 and backend.wide_sums is None else "asked for")


def prove_kernels(
    name: str, backend: Backend, model: onnx_library.ModelProto, samples: Sequence[Feeds], bits: WeightBits
) -> IntegerReport | str:
    """Compare the backend's integer kernels with float on samples; text where there is nothing to compare, and why.

    Raises SE605 naming the first layer that is further from float than rounding explains.
    """
    if backend.wide_sums is not None:
        return backend.wide_sums
    if (why := backend.probe().runs) is not None:
        return f"{name} cannot run here: {why}"
    if not isinstance(backend, BuildsFromOnnx):
        return f"{name} builds from no ONNX file"
    report = compare_kernels(backend, model, samples)
    layer = report.first_apart
    if layer is None:
        return report
    text = f"the integer kernels of {name} on this processor compute layer {layer} {layer.steps:.3g} steps of 8 bits"
    text += f" from the same layer in float; rounding explains {EXPLAINED:g}"
    remedy = "report this network and the processor, and build fp32"
    if bits == 8:
        remedy = "pairs of products overflow 16 bits: let weights take 7, with `calibration: {weights: 7}` or auto"
    raise fail("SE605", text, remedy)
