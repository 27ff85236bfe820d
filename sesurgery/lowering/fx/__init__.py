"""Lowering for engines that are built from the network itself: the ONNX passes' algebra on torch's exported graph.

Each pass has the name of its ONNX counterpart, so that `export: lowering:` means the same for every engine. Norms are
always folded first, because the other passes need the folded weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from sesurgery.catalog import Catalog
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.lowering.base import DEFECT, Edit
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.base import NetworkPass

PASSES = Catalog("sesurgery.lowering.fx.passes", NetworkPass, "pass", group="sesurgery.lowering.network")  # type: ignore[type-abstract]
EXACT = 1e-12
"""Accepted difference in float64 after folding weights, relative to the largest output."""
TINY = 1e-30


@dataclass(frozen=True)
class LoweredNetwork:
    """A network's graph after the passes, what they changed and left alone, and the difference each one made."""

    module: fx.GraphModule
    edits: tuple[Edit, ...]
    differences: dict[str, float] = field(default_factory=dict)


def lower(
    network: nn.Module, shape: graph.Shape, batch: tuple[int, int], names: Iterable[str], *, verify: bool = True
) -> LoweredNetwork:
    """Capture a network for a range of batches and lower it; passes without a counterpart here are listed in an edit.

    With `verify`, a copy in float64 is lowered too, and run on random inputs before and after every pass that changed
    something. Raises SE601 if the network cannot be exported, SE607 if a pass changes what it computes.
    """
    module = graph.capture(network, shape, batch)
    steps = ("fold_norms", *(name for name in names if name != "fold_norms"))
    edits = [edit for name in steps for edit in _apply(name, module)]
    return LoweredNetwork(module, tuple(edits), prove(network, shape, batch, steps) if verify else {})


def _apply(name: str, module: fx.GraphModule) -> tuple[Edit, ...]:
    if name in PASSES.names():
        return tuple(edit.of(name) for edit in PASSES.load(name)().apply(module))
    why = "it exists only for ONNX files: it is for another compiler"
    return (Edit(name, why, changed=False, kind="no_form"),)


def prove(network: nn.Module, shape: graph.Shape, batch: tuple[int, int], steps: Iterable[str]) -> dict[str, float]:
    """The difference that each pass makes, relative to the largest output; raises SE607 if it is more than rounding.

    Computed in float64, or in float32 for a network that only runs in float32.
    """
    count = min(max(batch[0], graph.EXAMPLE_BATCH), batch[1])
    image = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        module = graph.capture(copy.deepcopy(network).double(), shape, batch)
        expected = _answer(module, image)
    except (RuntimeError, SesurgeryError):
        image = image.float()
        module = graph.capture(network, shape, batch)
        expected = _answer(module, image)
    found: dict[str, float] = {}
    for name in steps:
        if not any(edit.changed for edit in _apply(name, module)):
            continue
        gap = (_answer(module, image) - expected).abs().max() / expected.abs().max().clamp_min(TINY)
        found[name] = float(gap)
        allowed = EXACT if image.dtype == torch.float64 else PASSES.load(name).tolerance
        if not found[name] <= allowed:
            text = f"{name} changed the outputs by {found[name]:.2g}, allowed are {allowed:.2g}"
            raise fail("SE607", text, DEFECT)
    return found


def _answer(module: fx.GraphModule, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = module(image)
    return answer
