"""What the report shows, read from the measurement store of a run; nothing here opens a network or an engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.diagnostics import SesurgeryError
from sesurgery.planner import Plan
from sesurgery.reports.model import EngineSection, LatencySection, NetworkSection, SiteRow
from sesurgery.spec import Spec
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.parity import PARITY
from sesurgery.workspace import EngineManifest, belonging, freshness, require_intact
from sesurgery.workspace.measurements import Kind, Of, OfPlan, read_reason

if TYPE_CHECKING:
    from sesurgery.accounting import Cost
    from sesurgery.pipeline.plan import NetworkPlan


@dataclass(frozen=True)
class Latency:
    """An engine raced against others, a section a batch."""

    of: Of
    sections: tuple[LatencySection, ...]


@dataclass(frozen=True)
class NetworkCost:
    """What a plan costs, site by site, as it was counted when it was carried out."""

    of: OfPlan
    section: NetworkSection


LATENCY = Kind("latency", Latency, "sesurgery bench")
NETWORK = Kind("cost", NetworkCost, "sesurgery apply")
PLAN = "plan"
"""The subject of the cost of a run's plan."""


def write_network(run: Path, planned: NetworkPlan) -> None:
    """Store the cost of a plan beside its run."""
    section = network_section(planned.spec, planned.plan, planned.sites, planned.before, planned.after)
    NETWORK.write(run, PLAN, NetworkCost(OfPlan(planned.plan.digest), section))


def network_section(spec: Spec, plan: Plan, sites: tuple[Cost, ...], before: Cost, after: Cost) -> NetworkSection:
    """A network before and after a plan; `sites` are the costs of its blocks, in the plan's order."""
    from sesurgery.accounting import CONVENTION

    rows = tuple(
        SiteRow(site.key, site.stage, site.channels, site.height, site.width, site.block.name, spent.params, spent.macs)
        for site, spent in zip(plan.sites, sites, strict=True)
    )
    return NetworkSection(
        model=f"{spec.model.source}:{spec.model.name}",
        input_shape=spec.input.shape,
        sites=rows,
        params_before=before.params,
        params_after=after.params,
        macs_before=before.macs,
        macs_after=after.macs,
        convention=CONVENTION,
    )


def latency_sections(run: Path, engine: Path, manifest: EngineManifest, weights: str) -> tuple[LatencySection, ...]:
    """The measured latency of an engine; empty if the measurement is of another engine."""
    found = LATENCY.read(run, engine.name, Of(manifest.sha256, weights))
    return () if found is None else found.sections


def engine_section(run: Path, engine: Path, manifest: EngineManifest, weights: str) -> EngineSection:
    """The section on an engine: how it was built, and its parity or why there is none.

    Measurements of an earlier engine of this name, or of other `weights` than the run has now, are left out.
    """
    details = manifest.details
    outdated = _outdated(run, engine, manifest, weights)
    told = None if outdated is None else outdated.diagnostics[0]
    stale = None if told is None else f"stale: {told.message}; {told.hint}"
    parity = None if stale else PARITY.read(run, engine.name, Of(manifest.sha256, weights))
    return EngineSection(
        backend=details.backend,
        precision=details.precision,
        file=engine.as_posix(),
        build_seconds=details.seconds,
        convolutions=details.convolutions,
        parity=parity.entries if parity else (),
        not_verified=None if parity else stale or read_reason(run, engine) or "it has not been verified yet",
        unverified=parity.unverified if parity else (),
        probes=parity.probes if parity else (),
        flipped=parity.flipped if parity else (),
        diagnosis=parity.diagnosis if parity else _stale(outdated),
        drift=parity.drift if parity else None,
        repairs=parity.repairs if parity else (),
        size_bytes=sum(path.stat().st_size for path in belonging(engine, manifest)),
        notes=details.notes,
        kept_fp32=details.kept_fp32,
    )


def _outdated(run: Path, engine: Path, manifest: EngineManifest, weights: str) -> SesurgeryError | None:
    """Why measurements of an engine are out of date, and what to do; None if they are current."""
    try:
        require_intact(engine)
        freshness.require_current(engine, manifest, run, weights)
    except SesurgeryError as error:
        return error
    return None


def _stale(error: SesurgeryError | None) -> Diagnosis | None:
    """The diagnosis of an engine of other weights; a file that is damaged has none."""
    return Diagnosis("stale", error.diagnostics[0].message) if isinstance(error, freshness.StaleEngine) else None
