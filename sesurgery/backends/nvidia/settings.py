"""A builder's configuration: what was asked for is set and read back, because a builder drops some of it in silence."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sesurgery.diagnostics import fail

TIMING_ITERATIONS = 8
"""trtexec's choice; the API's default of 1 picks kernels by a single noisy run."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What may be asked of a builder besides precision and shapes; None and empty leave the choice to it.

    `workspace` is in MiB, `capabilities` are names of trt.ComputeCapability, `hardware` is a name of
    trt.HardwareCompatibilityLevel. `detailed` makes the builder list the layers that it compiled.
    """

    workspace: int | None = None
    tf32: bool = False
    level: int | None = None
    aux_streams: int | None = None
    refit: bool = False
    stripped: bool = False
    version_compatible: bool = False
    hardware: str | None = None
    capabilities: tuple[str, ...] = ()
    detailed: bool = False

    @property
    def takes_weights(self) -> bool:
        """Whether the engine can be given weights once it is built."""
        return self.refit or self.stripped

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of trt.BuilderFlag that are set."""
        wanted = {
            "TF32": self.tf32,
            "REFIT": self.refit,
            # Weights that were left out come back by refitting.
            "REFIT_IDENTICAL": self.stripped and not self.refit,
            "STRIP_PLAN": self.stripped,
            "VERSION_COMPATIBLE": self.version_compatible,
        }
        return tuple(name for name, asked in wanted.items() if asked)


def configure(trt: ModuleType, name: str, builder: Any, settings: Settings, log: Any) -> Any:
    """An IBuilderConfig as asked for; raises SE604 with the builder's words where it does not take a setting."""
    config = builder.create_builder_config()
    # On by default: it would make an "fp32" engine drift from the trained model with 10 bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    for flag in settings.flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
        _took(config.get_flag(getattr(trt.BuilderFlag, flag)), name, flag, log)
    if hasattr(config, "avg_timing_iterations"):
        config.avg_timing_iterations = TIMING_ITERATIONS
    if settings.detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # A cap can remove the only kernel there is: none unless asked for.
    if settings.workspace is not None:
        pool, size = trt.MemoryPoolType.WORKSPACE, settings.workspace * MEBIBYTE
        config.set_memory_pool_limit(pool, size)
        _took(config.get_memory_pool_limit(pool) == size, name, f"a workspace of {settings.workspace} MiB", log)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
        _took(config.builder_optimization_level == settings.level, name, f"level {settings.level}", log)
    if settings.aux_streams is not None:
        config.max_aux_streams = settings.aux_streams
        _took(config.max_aux_streams == settings.aux_streams, name, f"{settings.aux_streams} auxiliary streams", log)
    if settings.hardware is not None:
        level = getattr(trt.HardwareCompatibilityLevel, settings.hardware)
        config.hardware_compatibility_level = level
        _took(config.hardware_compatibility_level == level, name, f"compatibility with {settings.hardware}", log)
    if settings.capabilities:
        config.num_compute_capabilities = len(settings.capabilities)
        for index, capability in enumerate(settings.capabilities):
            done = config.set_compute_capability(getattr(trt.ComputeCapability, capability), index)
            _took(done, name, f"compute capability {capability}", log)
    return config


def _took(done: bool, name: str, what: str, log: Any) -> None:
    if not done:
        words = "; ".join((*log.errors, *log.warnings)) or "it gave no reason"
        raise fail("SE604", f"{name} does not take {what}: {words}")
