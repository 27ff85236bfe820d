"""The backend behind `tensorrt` and `tensorrt-rtx`; the two plugins say what differs."""

from __future__ import annotations

import importlib
import importlib.util
import time
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from sesurgery.artifacts import writing
from sesurgery.backends import _source
from sesurgery.backends._nvidia import cuda
from sesurgery.backends._nvidia.build import EngineBuilder
from sesurgery.backends._nvidia.runner import NvidiaRunner
from sesurgery.backends.base import Backend, BuildOptions, BuildReport, Capability, Progress, Runner
from sesurgery.diagnostics import fail

Version = tuple[int, int]


class NvidiaBackend(Backend):
    """Builds and runs engines through one of NVIDIA's Python modules."""

    suffix = ".engine"
    module: ClassVar[str]
    title: ClassVar[str]
    install: ClassVar[str]
    versions: ClassVar[tuple[Version, Version]]
    """The oldest version that works, and the first that is not known to."""
    builds_without_gpu: ClassVar[bool]
    capabilities: ClassVar[tuple[str, ...]] = ()
    """Names of trt.ComputeCapability to build for; empty builds for the GPU at hand."""

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
        built = EngineBuilder(self._trt(), self.title, self.capabilities).build(source, options, progress)
        with writing(out) as temporary:
            temporary.write_bytes(built.plan)
        seconds = time.perf_counter() - started
        notes = (*_source.fixed_batch_notes(source, options.batch), *built.notes)
        return BuildReport(seconds, built.convolutions, self._device(), notes)

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        ability = self.probe()
        if ability.runs is not None:
            raise fail("SE603", f"{self.title} cannot run engines here: {ability.runs}", ability.remedy)
        if not engine.is_file():
            raise fail("SE402", f"{engine} is not there", "build it first")
        device = cuda.Cuda()
        try:
            return NvidiaRunner(self._trt(), self.title, engine.read_bytes(), device)
        except BaseException:
            device.close()
            raise

    def _trt(self) -> ModuleType:
        return importlib.import_module(self.module)

    def _device(self) -> str:
        if not self.capabilities:
            return cuda.device_name()
        numbers = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in self.capabilities)
        return f"NVIDIA GPUs of compute capability {numbers}"


def _parsed(version: str) -> Version:
    major, minor = (int(part) for part in version.split(".")[:2])
    return major, minor


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
