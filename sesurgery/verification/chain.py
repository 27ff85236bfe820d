"""Find the step between the trained network and its engine that changes the outputs, and the first place where it does.

network -> exported file -> lowered file in its precision -> engine. ONNX Runtime without rewriting computes the exact
result of each file. The first step whose result differs from the one before is at fault, and its kind follows from the
step: an export has other weights or nodes, an fp16 file overflows, an int8 file clips, a compiler deviates from its
file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.half_meaning import in_single
from sesurgery.onnxgraph.observe import watching
from sesurgery.verification.clipping import clipping, first_saturated
from sesurgery.verification.diagnosis import Diagnosis, Kind
from sesurgery.verification.drift import TOLERANCES, Compute, Drift, TapError, growth
from sesurgery.verification.files import difference_of, site_of
from sesurgery.verification.taps import Tap, found_in, taps_of

LARGEST_FP16 = 65504.0
SAMPLES = 8
"""Samples on which the files are compared, one at a time."""
MOST_NAMED = 0.5
"""If a larger share of the weights differs, they are from another checkpoint."""


@dataclass(frozen=True)
class Links:
    """The network exported now, the exported file behind the engine, and the file that the engine was built from.

    `modules` are the paths of the blocks' modules by key.
    """

    network: onnx.ModelProto
    exported: onnx.ModelProto
    source: onnx.ModelProto
    precision: str
    modules: Mapping[str, str]

    @property
    def taps(self) -> tuple[Tap, ...]:
        return taps_of(self.network, self.modules)


def of_files(links: Links, images: Sequence[NDArray[np.float32]]) -> Diagnosis | None:
    """The fault if one of the files has it; None if all of them compute the same as the network.

    `images` are batches [n, C, H, W].
    """
    export = of_file(links, links.exported, "fp32", images)
    if export.first is not None:
        return _of_export(links, export, export.first)
    if links.precision == "int8" and (clipped := _clipped(links, images)) is not None:
        return clipped
    lowered = of_file(links, links.source, links.precision, images)
    return None if lowered.first is None else _of_lowering(links.precision, lowered, lowered.first)


def diagnose(
    links: Links, told: Diagnosis | None, images: NDArray[np.float32], engine: Callable[[], Drift]
) -> Diagnosis:
    """The fault of an engine that fails parity, and its place: first from its outputs, then its files, then the engine.

    `told` is the diagnosis from its outputs. `images` [n, C, H, W] are run one by one, and all at once for a fault of
    the batch. `engine` returns the engine's own drift, which builds more engines and so is called last.
    """
    if told is not None and told.kind in ("labels", "preprocessing"):
        return told
    single = [images[index : index + 1] for index in range(len(images))]
    if told is not None and told.kind == "batch":
        taps, own = links.taps, found_in(links.source, links.taps)
        alone, together = computed(links.network, taps), computed(links.source, own)
        drift = growth(taps, own, alone, together, [images], TOLERANCES[links.precision])
        place = "" if drift.first is None else f"; it begins {_place(drift, drift.first)}"
        return replace(told, text=told.text + place, site=drift.first_site)
    return of_files(links, single) or of_engine(links, engine())


def of_engine(links: Links, drift: Drift) -> Diagnosis:
    """The fault of an engine whose files are right; `drift` is that of the engine."""
    first = drift.first
    kind: Kind = "precision" if links.precision != "fp32" else "compiler"
    if first is None:
        text = f"every block and stage is within the error of {links.precision}; the errors add up"
        return Diagnosis("precision", text)
    place = _place(drift, first)
    if links.precision == "int8":
        return Diagnosis("saturation", f"its integer kernels differ from its file {place}", _site(drift))
    if first.nonfinite and kind == "compiler":
        return Diagnosis("nonfinite", f"NaN or infinity starts {place}; the file has none", _site(drift))
    return Diagnosis(kind, f"its file agrees with the model, but the engine differs {place}", _site(drift))


def of_file(links: Links, model: onnx.ModelProto, precision: str, images: Sequence[NDArray[np.float32]]) -> Drift:
    """The drift of a file from the network, with the tolerance of a precision."""
    taps = links.taps
    own = found_in(model, taps)
    reference, candidate = computed(links.network, taps), computed(model, own)
    return growth(taps, own, reference, candidate, images, TOLERANCES[precision], "as the file says, in ONNX Runtime")


def computed(model: onnx.ModelProto, taps: Sequence[Tap]) -> Compute:
    """The values of a file at these places, computed by ONNX Runtime without rewriting."""
    run = numerics.runner(in_single(watching(model, [tap.value for tap in taps])))
    weights = {tensor.name for tensor in model.graph.initializer}
    (name,) = (value.name for value in model.graph.input if value.name not in weights)
    return lambda images: run({name: images})


def _of_export(links: Links, drift: Drift, first: TapError) -> Diagnosis:
    if first.nonfinite:
        text = f"NaN or infinity begins {_place(drift, first)}, in {first.nonfinite} samples; the model has none"
        return Diagnosis("nonfinite", text, _site(drift))
    apart = difference_of(links.network, links.exported)
    if apart.wired:
        # If a module is missing, its neighbours have other connections too; the block is the cause.
        sites = [site for scope in apart.wired if (site := site_of(scope, links.modules)) is not None]
        site = sites[0] if sites else _site(drift)
        text = (
            f"the file has other connections than the network in {_few(apart.wired)}; it shows {_place(drift, first)}"
        )
        return Diagnosis("wiring", text, site)
    if len(apart.weights) > MOST_NAMED * apart.compared:
        text = (
            f"{len(apart.weights)} of {apart.compared} weights differ from the run's: they are from another checkpoint"
        )
        return Diagnosis("weights", text)
    sites = [site for name in apart.weights if (site := site_of(name.rpartition(".")[0], links.modules)) is not None]
    text = f"{_few(apart.weights) or 'constants'} differ from the run's; it shows {_place(drift, first)}"
    return Diagnosis("weights", text, sites[0] if sites else _site(drift))


def _clipped(links: Links, images: Sequence[NDArray[np.float32]]) -> Diagnosis | None:
    name = links.source.graph.input[0].name
    found = first_saturated(clipping(links.source, ({name: batch} for batch in images)))
    if found is None:
        return None
    text = f"the range of {found.value!r} (in {found.scope}) clips {found.share:.1%} of its values"
    return Diagnosis("saturation", text, site_of(found.scope, links.modules) or _next_site(links, found.scope))


def _of_lowering(precision: str, drift: Drift, first: TapError) -> Diagnosis:
    place = _place(drift, first)
    if precision == "fp32":
        kind: Kind = "nonfinite" if first.nonfinite else "wiring"
        return Diagnosis(kind, f"the export is right, but the lowered file differs {place}", _site(drift))
    if first.nonfinite and precision == "fp16":
        beyond = f", where the model reaches {first.largest:.3g}" if first.largest > LARGEST_FP16 else ""
        text = f"a value leaves the range of fp16 (65504) {place}{beyond}: NaN or infinity from there on"
        return Diagnosis("precision", text, _site(drift))
    return Diagnosis("precision", f"rounding to {precision} is over tolerance {place}", _site(drift))


def _next_site(links: Links, scope: str) -> str | None:
    """The block after a module in the same unit; with several, that of the nearest parent."""
    parent = scope
    while parent:
        parent = parent.rpartition(".")[0]
        for key, module in links.modules.items():
            if parent and module.startswith(f"{parent}."):
                return key
    return None


def _place(drift: Drift, first: TapError) -> str:
    before = drift.before
    return f"between {before.name} and {first.name}" if before is not None else f"before {first.name}"


def _site(drift: Drift) -> str | None:
    return drift.first_site


def _few(words: Sequence[str], most: int = 3) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
