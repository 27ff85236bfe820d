"""The contract of backends and engines: a backend reports what it can do here, builds engines, and loads runners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sesurgery.artifacts import cpu_name
from sesurgery.diagnostics import fail
from sesurgery.profiles import Profile
from sesurgery.reasons import Reason
from sesurgery.spec.engines import Precision

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from sesurgery.backends.kernels.compiled import Compiled
    from sesurgery.backends.kernels.operators import Graph

Array = NDArray[np.generic]
Progress = Callable[[str, int, int], None]
"""Called with a description, the steps done and the total number of steps (0 where unknown)."""


@dataclass(frozen=True)
class Capability:
    """What a backend can do on this machine. `builds` and `runs` hold the reason where it cannot, None if it can."""

    version: str | None
    builds: str | None
    runs: str | None
    remedy: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes an engine must take: smallest, the one it is tuned for, largest."""

    minimum: int = 1
    optimum: int = 1
    maximum: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise fail(
                "SE104",
                f"batch sizes must rise from at least 1, found {self.minimum}, {self.optimum}, {self.maximum}",
                "give them as smallest, tuned for, largest",
            )


@dataclass(frozen=True)
class BuildOptions:
    """Build options common to all backends; a backend's own options are its dataclass fields.

    Without `profiles` there is one, over the batch of every dynamic input.
    """

    precision: Precision = "fp32"
    batch: BatchRange = field(default_factory=BatchRange)
    profiles: tuple[Profile, ...] = ()
    threads: int | None = None
    as_exported: bool = False
    """Whether the backend's own rewrites of gates (`Backend.rewrites`) are left out, as a baseline."""
    keep_fp32: tuple[str, ...] = ()
    """Globs over modules that stay fp32, for a backend that brings the network to its precision itself."""


@dataclass(frozen=True)
class BuildReport:
    """The result of a build; `convolutions` counts the output types found in the built network: {"fp16": 53}.

    `kept_fp32` is what a backend that brings the network to its precision itself left in fp32, and why.
    """

    seconds: float
    convolutions: Mapping[str, int]
    device: str
    notes: tuple[str, ...] = ()
    kept_fp32: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class TensorInfo:
    """A named input or output; a dimension is a number, or a name where it is dynamic."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Runner(AbstractContextManager["Runner"], ABC):
    """A loaded engine. Use it in a `with` block, which frees the engine's memory at its end."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @abstractmethod
    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises SE606 naming the tensor when a feed is missing, unknown or of another shape or dtype."""

    @abstractmethod
    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        """Seconds of each of `repeats` runs on the same feeds, in the order they ran, without conversions."""

    @abstractmethod
    def close(self) -> None:
        """Free the engine; calling it twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Backend(ABC):
    """Runs engines of one kind. The file name is the backend's name in specs and on the command line.

    A backend is a frozen dataclass; its fields are its options in specs, all of them with defaults. It also builds its
    engines: with `build` from an ONNX file (`BuildsFromOnnx`), or with `build_network` from the trained network
    (`BuildsFromNetwork`).
    """

    suffix: ClassVar[str]
    """File suffix of its engines, with the dot."""
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16")
    int8_activations: ClassVar[Literal["int8", "uint8"]] = "int8"
    """The type of activations that its integer kernels take."""
    wide_sums: ClassVar[str | None] = None
    """Why its target processors cannot saturate in int8 sums (16-bit pair sums); None if they may."""
    uniform: ClassVar[tuple[Precision, ...]] = ()
    """Precisions in which it computes the whole network, also what the file keeps in fp32."""
    native: ClassVar[bool] = False
    """Whether its engines are machine code, so that loading one runs code of its maker."""
    passes: ClassVar[tuple[str, ...]] = ()
    """Default lowering passes, chosen by measurement; `export: lowering:` in a spec overrides them."""
    lowered: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    """The precisions for which these were measured."""
    rewrites: ClassVar[tuple[Precision, ...]] = ()
    """The precisions in which `build` itself changes how gates are computed, passes or not."""

    @abstractmethod
    def probe(self) -> Capability:
        """What is installed and what it can do here; never raises and is fast."""

    def device(self) -> str:
        """The device that engines are built for here, as named in manifests."""
        return cpu_name()

    def beside(self, engine: Path) -> tuple[Path, ...]:
        """Files that belong to an engine besides its own."""
        return ()

    def facts(self, onnx: Path) -> Mapping[str, object]:
        """Facts about the ONNX file for the engine's manifest."""
        return {}

    @abstractmethod
    def load(self, engine: Path, threads: int | None = None) -> Runner:
        """Load an engine that this backend built; raises SE603 with the reason where it cannot run here."""


@runtime_checkable
class BuildsFromOnnx(Protocol):
    """A backend that builds from an ONNX file."""

    suffix: ClassVar[str]

    def build(self, onnx: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildReport:
        """Build `out` from an ONNX file that is already lowered to `options.precision`.

        Raises SE603 if it cannot build here, SE604 with the builder's own words where the build fails, and SE605
        where the built network does not have the precision asked for. On any error `out` is not written.
        """
        ...

    def load(self, engine: Path, threads: int | None = None) -> Runner: ...


@runtime_checkable
class BuildsFromNetwork(Protocol):
    """A backend that builds from the trained network itself, and so needs a run."""

    def build_network(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        out: Path,
        options: BuildOptions,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Build `out` from a network (already lowered) for images of `shape`; raises as `BuildsFromOnnx.build` does."""
        ...


@dataclass(frozen=True)
class LayerRun:
    """A layer in a run of an engine: its seconds, and the bytes that it reads and writes; None if nobody tells them."""

    seconds: float
    bytes: int | None = None


@runtime_checkable
class TimesLayers(Protocol):
    """A backend whose engines tell what each of their layers takes."""

    def layer_runs(
        self, engine: Path, feeds: Mapping[str, Array], runs: int, threads: int | None = None
    ) -> Mapping[str, LayerRun]:
        """Every layer that ran, by the name that it has in the engine; its seconds are the median of the runs."""
        ...


@runtime_checkable
class CountsLayers(Protocol):
    """A backend whose engines list their layers without being run."""

    def layer_count(self, engine: Path) -> int:
        """How many layers an engine has; raises SE603 if it cannot be loaded here."""
        ...


@runtime_checkable
class ListsOperators(Protocol):
    """A backend whose engines are optimised graphs: their operators are the kernels that run."""

    def operators(self, engine: Path, source: ModelProto | None = None) -> tuple[Graph, ...] | None:
        """The graphs of an engine, named after the ONNX file that it was built from; None if it has no such graph."""
        ...


@runtime_checkable
class ListsKernels(Protocol):
    """A backend whose compiler tells what kernels it makes of a network."""

    title: ClassVar[str]

    def kernels_of(self, engine: Path, batch: int) -> Compiled | None:
        """The kernels of an engine, open dimensions as `batch`; None if the engine does not say, or not here."""
        ...

    def compile_kernels(self, onnx: Path, options: BuildOptions) -> Compiled:
        """Compile an ONNX file as `build` does, keep no engine, and list the kernels at the profile's optimum.

        Raises SE603 if it cannot build here, and SE604 if the build fails or lists no kernels.
        """
        ...


@runtime_checkable
class TakesWeights(Protocol):
    """A backend that can put other weights into an engine of the same network."""

    title: ClassVar[str]
    refit: bool
    """Whether the engine takes any weights, and not only those it was built of."""

    @property
    def takes_weights(self) -> bool:
        """Whether engines that are built with these options take weights at all."""
        ...

    def probe(self) -> Capability: ...

    def remarks(self) -> tuple[str, ...]:
        """Notes for every engine with these options."""
        ...

    def with_weights(self) -> Self:
        """The same options for an engine that has its weights."""
        ...

    def put_weights(self, engine: Path, weights: Path, out: Path) -> None:
        """Write an engine to `out` with the weights of an ONNX file of the same network, which is not checked.

        Raises SE603 if the engine cannot be loaded here or takes no weights, SE604 if it does not take these.
        """
        ...


class RunTimes(Protocol):
    """Times of runs in parts; its text is a table."""

    @property
    def parts(self) -> Mapping[str, NDArray[np.float64]]:
        """Seconds of each run: `h2d`, `compute`, `d2h`, their sum `latency`, and the host's `enqueue`."""
        ...

    @property
    def throughput(self) -> float:
        """Runs a second."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers."""
        ...


@runtime_checkable
class TimesParts(Protocol):
    """A runner whose engine has its own memory, so that a run includes copies."""

    def timings(self, feeds: Mapping[str, Array], repeats: int) -> RunTimes:
        """Each of `repeats` runs in parts, its copies included."""
        ...
