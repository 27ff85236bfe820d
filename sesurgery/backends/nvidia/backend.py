"""The backend behind `tensorrt` and `tensorrt-rtx`; the two plugins say what differs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field

from sesurgery.artifacts import writing
from sesurgery.backends.base import Backend, BuildOptions, BuildReport, Capability, Progress, Runner
from sesurgery.backends.nvidia import cuda
from sesurgery.backends.nvidia.settings import Settings
from sesurgery.backends.nvidia.timing_cache import TimingCache
from sesurgery.diagnostics import fail

if TYPE_CHECKING:
    from sesurgery.backends.kernels.compiled import Compiled

Version = tuple[int, int]


@dataclass(frozen=True)
class NvidiaBackend(Backend):
    """Builds and runs engines through one of NVIDIA's Python modules."""

    suffix = ".engine"
    precisions = ("fp32", "fp16", "bf16", "int8")
    # NVIDIA's documentation: treat a plan as executable code.
    native = True
    wide_sums = "a GPU adds products of 8-bit values in 32 bits"
    module: ClassVar[str]
    title: ClassVar[str]
    install: ClassVar[str]
    versions: ClassVar[tuple[Version, Version]]
    """The oldest version that works, and the first that is not known to."""
    builds_without_gpu: ClassVar[bool]

    workspace: Annotated[int, Field(gt=0, le=1_048_576)] | None = None
    tf32: bool = False
    level: Annotated[int, Field(ge=0, le=5)] | None = None
    aux_streams: Annotated[int, Field(ge=0, le=256)] | None = None
    refit: bool = False
    stripped: bool = False
    version_compatible: bool = False
    detailed: bool = False
    cuda_graph: bool = True

    def settings(self) -> Settings:
        """The builder settings for these options."""
        return Settings(
            workspace=self.workspace,
            tf32=self.tf32,
            level=self.level,
            aux_streams=self.aux_streams,
            refit=self.refit,
            stripped=self.stripped,
            version_compatible=self.version_compatible,
            detailed=self.detailed,
        )

    def cache(self, engines: Path) -> TimingCache | None:
        """Where measurements are kept from build to build, for engines of one folder; None if they are not."""
        return None

    def probe(self) -> Capability:
        if importlib.util.find_spec(self.module) is None:
            reason = f"{self.title} is not installed"
            return Capability(None, builds=reason, runs=reason, remedy=self.install)
        try:
            version = str(importlib.import_module(self.module).__version__)
        except Exception as error:  # missing libraries raise OSError, ImportError, RuntimeError, by version
            reason = f"{self.title} is installed but cannot be imported: {error}"
            return Capability(None, builds=reason, runs=reason, remedy=self.install)
        oldest, too_new = self.versions
        if not oldest <= _parsed(version) < too_new:
            reason = f"{self.title} {version} is not supported: {_dotted(oldest)} or newer, before {_dotted(too_new)}"
            return Capability(version, builds=reason, runs=reason, remedy=self.install)
        no_gpu = cuda.obstacle()
        return Capability(version, None if self.builds_without_gpu else no_gpu, no_gpu, no_gpu and cuda.REMEDY)

    def build(self, onnx: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildReport:
        ability = self.probe()
        if ability.builds is not None:
            raise fail("SE603", f"{self.title} cannot build here: {ability.builds}", ability.remedy)
        from sesurgery.backends.inputs import onnx_file as _source
        from sesurgery.backends.nvidia.build import EngineBuilder

        source = _source.read(onnx)
        started = time.perf_counter()
        builder = EngineBuilder(self.library(), self.title, self.settings(), self.cache(out.parent))
        with writing(out) as temporary:
            built = builder.build(source, options, progress, temporary)
        seconds = time.perf_counter() - started
        fixed = () if options.profiles else _source.fixed_batch_notes(source, options.batch)
        return BuildReport(seconds, built.convolutions, self.device(), (*fixed, *self.remarks(), *built.notes))

    def facts(self, onnx: Path) -> Mapping[str, object]:
        """Of an engine that can take weights: which network and which weights it was built of."""
        from sesurgery.backends.inputs import onnx_network

        return {"network": onnx_network.read(onnx).recorded()} if self.takes_weights else {}

    def load(self, engine: Path, threads: int | None = None, weights: Path | None = None) -> Runner:
        """As every backend's. A stripped engine gets the weights of the file it was built from, if that is unchanged.

        `weights` is an ONNX file to take instead, of the same network, which is not checked: NVIDIA's refitter goes by
        names. An engine that was built `stripped` and not `refit` takes only those weights that it was built of.
        """
        from sesurgery.backends.inputs import onnx_network
        from sesurgery.backends.nvidia.runner import NvidiaRunner

        self._require_gpu("run engines")
        if not engine.is_file():
            raise fail("SE402", f"{engine} is not there", "build it first")
        if weights is None and self.stripped:
            weights = onnx_network.origin(engine)
        device = cuda.open_device()
        try:
            return NvidiaRunner(
                self.library(),
                self.title,
                engine.read_bytes(),
                device,
                cuda_graph=self.cuda_graph,
                version_compatible=self.version_compatible,
                weights=weights,
            )
        except BaseException:
            device.close()
            raise

    def put_weights(self, engine: Path, weights: Path, out: Path) -> None:
        """Write an engine to `out` with the weights of an ONNX file, on which the last paragraph of `load` holds.

        Raises SE603 if it cannot be loaded here or takes no weights, SE604 if it does not take these. Then `out`
        is not written.
        """
        from sesurgery.backends.nvidia import refit
        from sesurgery.backends.nvidia.loaded import Loaded

        self._require_gpu("load engines, and so not put weights into them,")
        device = cuda.open_device()
        try:
            with writing(out) as temporary, device.active():
                plan = engine.read_bytes()
                loaded = Loaded(self.library(), self.title, plan, device, self.version_compatible, weights)
                try:
                    refit.write(self.library(), loaded, temporary, refittable=self.refit)
                finally:
                    loaded.forget()
        finally:
            device.close()

    def _require_gpu(self, what: str) -> None:
        ability = self.probe()
        if ability.runs is not None:
            raise fail("SE603", f"{self.title} cannot {what} here: {ability.runs}", ability.remedy)

    @property
    def takes_weights(self) -> bool:
        return self.settings().takes_weights

    def with_weights(self) -> Self:
        """The same options for an engine that has its weights."""
        return replace(self, stripped=False)

    def kernels_of(self, engine: Path, batch: int) -> Compiled | None:
        from sesurgery.backends.nvidia import inspector

        if not self.detailed or self.probe().runs is not None:
            return None
        told = self.inspected(engine)
        return inspector.parse(told, batch) if inspector.tells_types(told) else None

    def compile_kernels(self, onnx: Path, options: BuildOptions) -> Compiled:
        from sesurgery.backends.nvidia.build import EngineBuilder
        from sesurgery.backends.nvidia.compiled import compile_

        ability = self.probe()
        if ability.builds is not None:
            raise fail("SE603", f"{self.title} cannot build here: {ability.builds}", ability.remedy)
        builder = EngineBuilder(self.library(), self.title, replace(self.settings(), detailed=True))
        return compile_(builder, self.title, onnx, options)

    def inspected(self, engine: Path) -> str:
        """The library's inspector's JSON of an engine; raises SE603 if the engine cannot be loaded here."""
        from sesurgery.backends.nvidia.runner import NvidiaRunner

        with self.load(engine) as runner:
            assert isinstance(runner, NvidiaRunner)
            return runner.layers()

    def layer_count(self, engine: Path) -> int:
        # Of every verbosity: an engine that was not built with `detailed` has their names.
        return len(json.loads(self.inspected(engine)).get("Layers", ()))

    def library(self) -> ModuleType:
        """NVIDIA's Python module."""
        return importlib.import_module(self.module)

    def device(self) -> str:
        return cuda.device_name()

    def remarks(self) -> tuple[str, ...]:
        """Notes for every engine with these options."""
        if not self.stripped:
            return ()
        return ("the engine has no weights: it takes them from its ONNX file when it is loaded, so keep that as it is",)


def _parsed(version: str) -> Version:
    major, minor = (int(part) for part in version.split(".")[:2])
    return major, minor


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
