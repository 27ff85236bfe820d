"""The backend behind `tensorrt` and `tensorrt-rtx`; the two plugins say what differs."""

from __future__ import annotations

import importlib
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, ClassVar

from pydantic import Field

from sesurgery.artifacts import writing
from sesurgery.backends import _source
from sesurgery.backends._nvidia import cuda
from sesurgery.backends._nvidia.build import EngineBuilder
from sesurgery.backends._nvidia.runner import NvidiaRunner
from sesurgery.backends._nvidia.settings import Settings
from sesurgery.backends._nvidia.timing_cache import TimingCache
from sesurgery.backends.base import Backend, BuildOptions, BuildReport, Capability, Progress, Runner
from sesurgery.diagnostics import fail

Version = tuple[int, int]


@dataclass(frozen=True)
class NvidiaBackend(Backend):
    """Builds and runs engines through one of NVIDIA's Python modules."""

    suffix = ".engine"
    precisions = ("fp32", "fp16", "bf16", "int8")
    module: ClassVar[str]
    title: ClassVar[str]
    install: ClassVar[str]
    versions: ClassVar[tuple[Version, Version]]
    """The oldest version that works, and the first that is not known to."""
    builds_without_gpu: ClassVar[bool]

    workspace: Annotated[int, Field(gt=0)] | None = None
    tf32: bool = False
    level: Annotated[int, Field(ge=0, le=5)] | None = None
    aux_streams: Annotated[int, Field(ge=0)] | None = None
    refit: bool = False
    stripped: bool = False
    version_compatible: bool = False
    detailed: bool = False
    cuda_graph: bool = True

    def settings(self) -> Settings:
        """What these options ask of a builder."""
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
        """Where measurements are kept from build to build, for engines of one folder; None where they are not."""
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
        source = _source.read(onnx)
        started = time.perf_counter()
        builder = EngineBuilder(self.library(), self.title, self.settings(), self.cache(out.parent))
        with writing(out) as temporary:
            built = builder.build(source, options, progress, temporary)
        seconds = time.perf_counter() - started
        fixed = () if options.profiles else _source.fixed_batch_notes(source, options.batch)
        return BuildReport(seconds, built.convolutions, self.device(), (*fixed, *self._remarks(), *built.notes))

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        ability = self.probe()
        if ability.runs is not None:
            raise fail("SE603", f"{self.title} cannot run engines here: {ability.runs}", ability.remedy)
        if not engine.is_file():
            raise fail("SE402", f"{engine} is not there", "build it first")
        device = cuda.open_device()
        try:
            return NvidiaRunner(
                self.library(),
                self.title,
                engine.read_bytes(),
                device,
                cuda_graph=self.cuda_graph,
                version_compatible=self.version_compatible,
            )
        except BaseException:
            device.close()
            raise

    def layers(self, engine: Path) -> str:
        """What the library's inspector tells of an engine, as JSON; raises SE603 where it cannot run here."""
        with self.load(engine) as runner:
            assert isinstance(runner, NvidiaRunner)
            return runner.layers()

    def library(self) -> ModuleType:
        """NVIDIA's Python module."""
        return importlib.import_module(self.module)

    def device(self) -> str:
        return cuda.device_name()

    def _remarks(self) -> tuple[str, ...]:
        if not self.stripped:
            return ()
        return ("the engine has no weights: put them back with a refitter before it runs",)


def _parsed(version: str) -> Version:
    major, minor = (int(part) for part in version.split(".")[:2])
    return major, minor


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
