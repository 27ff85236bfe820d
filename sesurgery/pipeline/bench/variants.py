"""Engines of a network with some of its blocks, in a temporary folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from sesurgery.backends.base import Array, Backend, CountsLayers, LayerRun, ListsKernels, TimesLayers
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.scopes import scope_of
from sesurgery.onnxgraph.traffic import traffic
from sesurgery.onnxgraph.without import without
from sesurgery.pipeline.build_engine.building import build
from sesurgery.pipeline.build_engine.request import BuildRequest
from sesurgery.spec.engines import Engine
from sesurgery.verification.fresh_process import EngineFile, engine_file
from sesurgery.verification.placements import named
from sesurgery.workspace import OnnxDetails, OnnxManifest, Provenance, describe, relative
from sesurgery.workspace.folders import Workspace

COUNTED, PROFILED = 1, 20
"""Runs with the engine's profiler on: enough to count its layers, and to know their times."""


@dataclass(frozen=True)
class Variant:
    """An engine with some of the blocks.

    `bytes` are what its layers read and write, or what the nodes of its file do before fusion where the engine does not
    tell (`tells_bytes`). `layers` is how many the compiled engine has, None of a backend that does not tell. `owners`
    holds the module of each node and value of that file.
    """

    file: EngineFile
    bytes: int
    layers: int | None
    owners: Mapping[str, str]


@dataclass(frozen=True)
class Listed:
    """How many layers a compiled engine lists, and what they read and write; None where it does not tell."""

    layers: int | None
    bytes: int | None


def tells_bytes(backend: Backend) -> bool:
    """Whether engines of a backend tell what their layers read and write; NVIDIA's do if built with `detailed`."""
    return isinstance(backend, TimesLayers) or (
        isinstance(backend, ListsKernels) and getattr(backend, "detailed", True)
    )


@dataclass(frozen=True)
class Variants:
    """Builds engines of a file without some of its modules.

    What is built is timed and thrown away: passes prove nothing of it, as they do of the engine that is kept.
    """

    model: onnx.ModelProto
    wanted: Engine
    feeds: Mapping[str, Array]
    threads: int
    folder: Path
    lowering: tuple[str, ...] | None = None
    run: Path | None = None
    """Whose training data gives ranges for another precision."""

    def build(self, name: str, modules: Sequence[str]) -> Variant:
        """The engine without these modules, under a name."""
        file = self.folder / f"{name}.onnx"
        onnx_io.save(without(self.model, modules), file)
        if self.wanted.precision != "fp32" and self.run is not None:
            details = OnnxDetails(run=relative(self.run.resolve(), file.resolve()), precision="fp32")
            describe(file, Provenance(OnnxManifest, name, "sesurgery bench --per-block", details=details))
        request = BuildRequest(file, self.wanted, Workspace(self.folder), lowering=self.lowering, proved=False)
        made = build(request)
        lowered = [path for path in made.manifest.parent_files(made.path) if path.suffix == ".onnx"]
        source = onnx_io.load(lowered[0] if lowered else file)
        engine = engine_file(name, made.path, made.manifest, self.threads)
        listed = self.listed(engine)
        moved = traffic(source, self.batch) if listed.bytes is None else listed.bytes
        # A network of 100 MB has a few dozen variants.
        for path in {file, *lowered}:
            path.unlink()
        return Variant(engine, moved, listed.layers, _owners(source))

    @property
    def batch(self) -> int:
        return max(map(len, self.feeds.values()), default=1)

    def listed(self, engine: EngineFile) -> Listed:
        """What a compiled engine says of its layers; kernels of NVIDIA's tell their activations, without weights."""
        backend: Backend = self.wanted.backend.options
        path = Path(engine.engine)
        if isinstance(backend, CountsLayers):
            kernels = backend.kernels_of(path, self.batch) if isinstance(backend, ListsKernels) else None
            return Listed(backend.layer_count(path), None if kernels is None else kernels.traffic)
        ran = self._ran(engine, COUNTED)
        if ran is None:
            return Listed(None, None)
        sizes = [layer.bytes for layer in ran.values() if layer.bytes is not None]
        return Listed(len(ran), sum(sizes) if sizes else None)

    def layers(self, engine: EngineFile, runs: int) -> Mapping[str, float] | None:
        """Seconds that each layer of an engine takes by its own account, None of a backend that gives none."""
        ran = self._ran(engine, runs)
        return None if ran is None else {name: layer.seconds for name, layer in ran.items()}

    def _ran(self, engine: EngineFile, runs: int) -> Mapping[str, LayerRun] | None:
        backend: Backend = self.wanted.backend.options
        if not isinstance(backend, TimesLayers):
            return None
        with engine.load() as runner:
            feeds = named(runner, self.feeds)
        return backend.layer_runs(Path(engine.engine), feeds, runs, self.threads)


def _owners(model: onnx.ModelProto) -> dict[str, str]:
    return {name: scope_of(node) or "" for node in model.graph.node for name in (node.name, *node.output) if name}


def attributed(layers: Mapping[str, float], owners: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, float]:
    """A profile's seconds by block: a layer is known by the node or the value that its name begins with.

    `keys` are the blocks' by their modules.
    """
    found = dict.fromkeys(keys.values(), 0.0)
    for name, seconds in layers.items():
        stem = name.rpartition("/")[2] if name not in owners else name
        word = max((word for word in owners if _begins(stem, word)), key=len, default="")
        scope = owners.get(word, "")
        key = next((key for module, key in keys.items() if scope == module or scope.startswith(f"{module}.")), None)
        if key is not None:
            found[key] += seconds
    return found


def _begins(name: str, word: str) -> bool:
    return name == word or name.startswith((f"{word}_", f"{word}/"))
