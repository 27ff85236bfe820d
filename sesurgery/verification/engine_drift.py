"""The drift of an engine: its backend builds a copy of its file with more outputs, which is compared with the model.

All places are measured in one copy if that copy shows the same fault as the engine. An additional output can prevent
the fusion that is wrong, and then the copy is right. In that case places are measured one at a time, and bisection
finds the first one over tolerance; the number of builds is the logarithm of the number of places.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sesurgery.backends.base import BuildOptions, BuildsFromOnnx, Runner
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.observe import watching
from sesurgery.verification.chain import Links, computed
from sesurgery.verification.drift import TOLERANCES, Compute, Drift, TapError, growth
from sesurgery.verification.taps import Tap, found_in

Images = Sequence[NDArray[np.float32]]
BuildTapped = Callable[[Sequence[Tap], Path], Runner]
"""Builds an engine whose outputs are the values at these places; it may write into the folder."""


@dataclass(frozen=True)
class Suspect:
    """An engine whose drift is measured: the places in its file, the model, and a builder of copies with outputs."""

    links: Links
    found: tuple[Tap, ...]
    build: BuildTapped


def of_backend(links: Links, backend: BuildsFromOnnx, options: BuildOptions) -> Suspect:
    """The engine that a backend builds from the last file of the chain."""

    def build(taps: Sequence[Tap], folder: Path) -> Runner:
        file = folder / "tapped.onnx"
        onnx_io.save(watching(links.source, [tap.value for tap in taps]), file)
        engine = folder / f"tapped.engine{backend.suffix}"
        backend.build(file, engine, options)
        return backend.load(engine)

    return Suspect(links, found_in(links.source, links.taps), build)


def drift(suspect: Suspect, images: Images) -> Drift:
    """The error of the engine along the network on batches [n, C, H, W]."""
    tolerance = TOLERANCES[suspect.links.precision]
    everywhere = _look(suspect, suspect.found, images, tolerance, "all places at once, in a copy")
    if everywhere.first is not None or _look(suspect, suspect.found[-1:], images, tolerance, "").first is None:
        return everywhere
    return _bisect(suspect, images, tolerance)


def _bisect(suspect: Suspect, images: Images, tolerance: float) -> Drift:
    """Measure one place at a time; places that were not measured are left out."""
    seen: dict[int, TapError] = {}
    low, high = 0, len(suspect.found) - 1
    while low < high:
        middle = (low + high) // 2
        looked = _look(suspect, [suspect.found[middle], suspect.found[-1]], images, tolerance, "")
        seen[middle], seen[len(suspect.found) - 1] = looked.errors[0], looked.errors[-1]
        # The place is right, and measuring it makes the end right: the fusion across this place is wrong.
        wrong = not looked.errors[0].error <= tolerance or looked.first is None
        low, high = (low, middle) if wrong else (middle + 1, high)
    how = "one place at a time: measuring all of them at once makes the engine right"
    return Drift(tuple(seen[place] for place in sorted(seen)), tolerance, how)


def _look(suspect: Suspect, taps: Sequence[Tap], images: Images, tolerance: float, how: str) -> Drift:
    everywhere = suspect.links.taps
    with tempfile.TemporaryDirectory() as folder, suspect.build(taps, Path(folder)) as runner:
        reference = computed(suspect.links.network, everywhere)
        return growth(everywhere, taps, reference, _infer(runner, taps), images, tolerance, how)


def _infer(runner: Runner, taps: Sequence[Tap]) -> Compute:
    (info,) = runner.inputs

    def compute(images: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        given = runner.infer({info.name: np.ascontiguousarray(images, np.dtype(info.dtype))})
        return {tap.value: given[tap.value] for tap in taps}

    return compute
