"""The content of a report as frozen data, which every rendering starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sesurgery.reasons import Reason
from sesurgery.verification.cost import Prices
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.drift import Drift, Repair
from sesurgery.verification.flips import FlippedSample
from sesurgery.verification.folding import Folding
from sesurgery.verification.latency import LatencyReport
from sesurgery.verification.parity import BatchParity
from sesurgery.verification.probes import ProbeParity
from sesurgery.verification.service import EngineService

MAC_CONVENTION = "MACs of convolutions and linear layers, batch 1"


@dataclass(frozen=True)
class SiteRow:
    """One block inserted: where, at which feature map, and what it adds. `stage` is None between stages."""

    key: str
    stage: int | None
    channels: int
    height: int
    width: int
    block: str
    params: int
    macs: int


@dataclass(frozen=True)
class NetworkSection:
    """The network before and after surgery. `input_shape` is channels, height, width."""

    model: str
    input_shape: tuple[int, ...]
    sites: tuple[SiteRow, ...]
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    convention: str = MAC_CONVENTION


@dataclass(frozen=True)
class EpochRow:
    """One epoch; `top1` is on the held-out samples, as a share."""

    epoch: int
    train_loss: float
    top1: float
    learning_rate: float


@dataclass(frozen=True)
class TrainingSection:
    """How training went. `data` is a short phrase; `top1`, on held-out samples, belongs to the weights kept."""

    data: str
    epochs: tuple[EpochRow, ...]
    top1: float


@dataclass(frozen=True)
class EngineSection:
    """A built engine. Where it was not compared with the model, `not_verified` holds the reason and `parity` is empty.

    `unverified` holds the batch sizes asked for at which it could not be compared, each as "batch N: reason".

    `convolutions` counts the output types found in the built network: {"fp16": 53}. `kept_fp32` holds the nodes that
    stayed fp32 in an engine of another precision, and why. `probes` and what follows are those of
    `EngineParity`.
    """

    backend: str
    precision: str
    file: str
    build_seconds: float
    convolutions: Mapping[str, int]
    parity: tuple[BatchParity, ...] = ()
    not_verified: str | None = None
    size_bytes: int | None = None
    notes: tuple[str, ...] = ()
    kept_fp32: tuple[Reason, ...] = ()
    unverified: tuple[str, ...] = ()
    probes: tuple[ProbeParity, ...] = ()
    flipped: tuple[FlippedSample, ...] = ()
    diagnosis: Diagnosis | None = None
    drift: Drift | None = None
    repairs: tuple[Repair, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    @property
    def passed(self) -> bool | None:
        """Whether every comparison met its tolerance; None if there was none, or not at every size asked for."""
        if not all(entry.report.passed for entry in self.parity) or not all(probe.passed for probe in self.probes):
            return False
        return True if self.parity and not self.unverified else None


@dataclass(frozen=True)
class PartTimes:
    """An engine's runs in parts: seconds of each run by part, as `sesurgery.backends.base.RunTimes` names them."""

    name: str
    seconds: Mapping[str, tuple[float, ...]]
    throughput_qps: float


@dataclass(frozen=True)
class LatencySection:
    """A race with its name and its mode, e.g. "2 CPU threads, the run alone, no transfers".

    `parts`: for engines on a GPU, what their copies, their compute and their start took, as tables in text, and in
    `part_times` every run. `services`: what each engine takes as a service, where that was asked. `threads` are those
    of a run on the CPU.
    """

    title: str
    mode: str
    report: LatencyReport
    parts: tuple[str, ...] = ()
    services: tuple[EngineService, ...] = ()
    threads: int | None = None
    part_times: tuple[PartTimes, ...] = ()


@dataclass(frozen=True)
class FileRow:
    """A file that the run read or wrote."""

    path: str
    sha256: str
    role: str = ""


@dataclass(frozen=True)
class Provenance:
    """What made the results: versions of packages, the device, digests by name ("spec", "plan"), files."""

    versions: Mapping[str, str]
    device: str
    digests: Mapping[str, str]
    files: tuple[FileRow, ...] = ()


@dataclass(frozen=True)
class RunReport:
    """A whole run. `command` makes it again; `created` is a date and time as text."""

    title: str
    created: str
    command: str
    network: NetworkSection
    training: TrainingSection | None
    engines: tuple[EngineSection, ...]
    latency: tuple[LatencySection, ...]
    provenance: Provenance
    prices: tuple[Prices, ...] = ()
    folding: Folding | None = None
