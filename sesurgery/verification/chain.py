"""Which link between the trained network and its engine computes something else, and where in the network it begins.

network -> the file exported -> the file lowered and in its precision -> engine. Each file has a meaning, which ONNX
Runtime computes when it may rewrite nothing. The first link whose meaning is not the one before is at fault, and what
it does says of what kind the fault is: an export has other weights or other nodes, a file in fp16 overflows, one in
int8 clips, a compiler computes what no file says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.half_meaning import in_single
from sesurgery.verification.clipping import clipping, first_saturated
from sesurgery.verification.diagnosis import Diagnosis, Kind
from sesurgery.verification.drift import TOLERANCES, Compute, Drift, TapError, growth
from sesurgery.verification.files import difference_of, site_of
from sesurgery.verification.taps import Tap, found_in, tapped, taps_of

LARGEST_FP16 = 65504.0
SAMPLES = 8
"""Samples that the files are compared on: each of them is run through several files, one at a time."""
MOST_NAMED = 0.5
"""Where more of the weights differ, they are another checkpoint's."""


@dataclass(frozen=True)
class Links:
    """The trained network as it is exported now, the file that the engine descends from, and the one it was built of.

    `modules` are the modules of the blocks by their keys.
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
    """The fault where one of the files has it; None where all of them compute what the network does.

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
    """What is wrong with an engine that falls short, and where: of its answers, its files, and itself, in this order.

    `told` is what its answers said; `images` [n, C, H, W] are looked at one by one, and for a fault of the batch all at
    once. `engine` gives the engine's own drift, for which others are built: it is asked last.
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
        text = f"no block and no stage is further from the model than {links.precision} explains; it adds up"
        return Diagnosis("precision", text)
    place = _place(drift, first)
    if links.precision == "int8":
        return Diagnosis("saturation", f"its integer kernels part from the file's own numbers {place}", _site(drift))
    if first.nonfinite and kind == "compiler":
        return Diagnosis("nonfinite", f"NaN or infinity begins {place}; the file has none", _site(drift))
    return Diagnosis(kind, f"its file computes what the model does, the engine leaves it {place}", _site(drift))


def of_file(links: Links, model: onnx.ModelProto, precision: str, images: Sequence[NDArray[np.float32]]) -> Drift:
    """The drift of a file's meaning from the network, with the tolerance of a precision."""
    taps = links.taps
    own = found_in(model, taps)
    reference, candidate = computed(links.network, taps), computed(model, own)
    return growth(taps, own, reference, candidate, images, TOLERANCES[precision], "as the file says, in ONNX Runtime")


def computed(model: onnx.ModelProto, taps: Sequence[Tap]) -> Compute:
    """What a file gives at these places, by ONNX Runtime without any rewriting."""
    run = numerics.runner(in_single(tapped(model, taps)))
    weights = {tensor.name for tensor in model.graph.initializer}
    (name,) = (value.name for value in model.graph.input if value.name not in weights)
    return lambda images: run({name: images})


def _of_export(links: Links, drift: Drift, first: TapError) -> Diagnosis:
    if first.nonfinite:
        text = f"NaN or infinity begins {_place(drift, first)}, in {first.nonfinite} samples; the model has none"
        return Diagnosis("nonfinite", text, _site(drift))
    apart = difference_of(links.network, links.exported)
    if apart.wired:
        # Where a module is gone, those around it are wired otherwise as well: the block is what is meant.
        sites = [site for scope in apart.wired if (site := site_of(scope, links.modules)) is not None]
        site = sites[0] if sites else _site(drift)
        text = f"the file is wired otherwise than the network in {_few(apart.wired)}; it shows {_place(drift, first)}"
        return Diagnosis("wiring", text, site)
    if len(apart.weights) > MOST_NAMED * apart.compared:
        text = f"{len(apart.weights)} of {apart.compared} weights are others than the run's: another checkpoint's"
        return Diagnosis("weights", text)
    sites = [site for name in apart.weights if (site := site_of(name.rpartition(".")[0], links.modules)) is not None]
    text = f"{_few(apart.weights) or 'constants'} are others than the run's; it shows {_place(drift, first)}"
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
        return Diagnosis(kind, f"the export is right and the lowered file leaves the model {place}", _site(drift))
    if first.nonfinite and precision == "fp16":
        beyond = f", where the model reaches {first.largest:.3g}" if first.largest > LARGEST_FP16 else ""
        text = f"a value leaves the range of fp16 (65504) {place}{beyond}: NaN or infinity from there on"
        return Diagnosis("precision", text, _site(drift))
    return Diagnosis("precision", f"rounding to {precision} is over tolerance {place}", _site(drift))


def _next_site(links: Links, scope: str) -> str | None:
    """The block behind a module: of blocks in the same unit of the network, the nearest parent's."""
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
