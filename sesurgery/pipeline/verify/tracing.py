"""The chain behind an engine of a run, from its files: what a search for a fault starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from sesurgery.backends.base import BatchRange, BuildOptions, BuildsFromNetwork, BuildsFromOnnx, Runner
from sesurgery.networks.checkpoint import Run
from sesurgery.networks.plain import plain_network
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph import numerics
from sesurgery.pipeline.specs import backend_of, engine_of
from sesurgery.profiles import parse_profile
from sesurgery.verification.chain import Links, computed
from sesurgery.verification.engine_drift import Suspect, of_backend
from sesurgery.verification.taps import Tap
from sesurgery.workspace import EngineManifest, OnnxManifest, manifest_path, read_manifest


@dataclass(frozen=True)
class Traced:
    """An engine's chain, and who builds the engine again with more outputs."""

    links: Links
    suspect: Suspect


def trace(run: Run, engine: Path, manifest: EngineManifest) -> Traced:
    """The chain of an intact engine of this run. The network is exported again: it alone is what was trained."""
    from sesurgery.networks.export import convert

    details = manifest.details
    network = plain_network(run) if details.plain else run.network
    fresh = convert(network, run.spec.input.shape, run.spec.export)
    # A plan for a part of a network names its blocks within that part.
    inside = f"{part}." if (part := getattr(run.spec.model, "submodule", "")) else ""
    modules = {} if details.plain else {site.key: f"{inside}{site.module}" for site in run.plan.sites}
    file = manifest.locate(engine, details.onnx)
    exported = onnx_io.load(file) if file.is_file() else fresh
    links = Links(fresh, exported, _source(engine, manifest) or exported, details.precision, modules)
    return Traced(links, _suspect(links, run, manifest))


def _source(engine: Path, manifest: EngineManifest) -> onnx.ModelProto | None:
    """The file that the engine was built of, where it is an ONNX file that is still there."""
    for path in manifest.parent_files(engine):
        if path.suffix == ".onnx" and path.is_file() and manifest_path(path).is_file():
            read_manifest(path, OnnxManifest)
            return onnx_io.load(path)
    return None


def _suspect(links: Links, run: Run, manifest: EngineManifest) -> Suspect:
    asked, backend = engine_of(manifest), backend_of(manifest)
    options = BuildOptions(
        asked.precision,
        BatchRange(asked.batch.min, asked.batch.opt, asked.batch.max),
        tuple(parse_profile(shapes) for shapes in asked.shapes),
        as_exported=manifest.details.as_exported,
        keep_fp32=asked.keep_fp32,
    )
    if isinstance(backend, BuildsFromOnnx):
        return of_backend(links, backend, options)
    if not isinstance(backend, BuildsFromNetwork):
        raise TypeError(f"{type(backend).__name__} has neither build nor build_network")
    return _of_network(links, run, manifest, backend, options)


def _of_network(
    links: Links, run: Run, manifest: EngineManifest, backend: BuildsFromNetwork, options: BuildOptions
) -> Suspect:
    """The engine that a backend builds from the network itself; its copies watch modules, not values of a file."""
    from sesurgery.lowering.fx import lower
    from sesurgery.verification.tapped_network import INNER, TappedNetwork, TappedRunner, watchable

    network = plain_network(run) if manifest.details.plain else run.network
    shape, everywhere = run.spec.input.shape, links.taps
    images = numerics.random_image(np.random.default_rng(0), shape).astype(np.float32)[None]
    taps = watchable(network, everywhere, computed(links.network, everywhere)(images), images)
    # Globs name modules of the network, which is one module of the tapped one.
    inside = replace(options, keep_fp32=tuple(f"{INNER}.{glob}" for glob in options.keep_fp32))

    def build(chosen: Sequence[Tap], folder: Path) -> Runner:
        watched = TappedNetwork(network, [tap.scope for tap in chosen[:-1]])
        target = folder / f"tapped{backend_of(manifest).suffix}"
        batch = (options.batch.minimum, options.batch.maximum)
        # The passes were proved when the engine was built.
        lowered = lower(watched, shape, batch, _passes(manifest), verify=False)
        backend.build_network(lowered.module, shape, target, inside)
        return TappedRunner(backend_of(manifest).load(target), chosen, watched.widths(shape))

    return Suspect(links, taps, build)


def _passes(manifest: EngineManifest) -> tuple[str, ...]:
    if manifest.details.as_exported:
        return ()
    lowering = manifest.details.lowering
    return backend_of(manifest).passes if lowering is None else lowering
