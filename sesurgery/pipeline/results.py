"""Measurements kept beside a run as JSON, so that each verb adds its own and the report shows them all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sesurgery.artifacts import mistake, read_small
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.reports.model import BatchParity, EngineSection, LatencySection
from sesurgery.workspace import EngineManifest, belonging, freshness, require_intact

FOLDER = "reports"


@dataclass(frozen=True)
class Of:
    """What was measured: digests of the engine, and of the run's weights that it was built from."""

    engine: str
    weights: str


@dataclass(frozen=True)
class Parity:
    """An engine beside the trained model, batch size by batch size, and the sizes that could not be compared."""

    # JSON has no NaN and no infinity: an engine that gives them is measured all the same, and they are words here.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")
    of: Of
    entries: tuple[BatchParity, ...]
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latency:
    """An engine raced against others, a section a batch."""

    of: Of
    sections: tuple[LatencySection, ...]


PARITY: TypeAdapter[Any] = TypeAdapter(Parity)
LATENCY: TypeAdapter[Any] = TypeAdapter(Latency)


def parity_file(run: Path, engine: Path) -> Path:
    return run / FOLDER / f"{engine.name}.parity.json"


def latency_file(run: Path, engine: Path) -> Path:
    return run / FOLDER / f"{engine.name}.latency.json"


def dump(adapter: TypeAdapter[Any], value: object) -> str:
    """JSON of a report's dataclasses."""
    return adapter.dump_json(value, indent=2).decode() + "\n"


def read(adapter: TypeAdapter[Any], path: Path) -> Any:
    """The inverse of `dump`, None where the file is not there; raises SE401 where it is something else."""
    if not path.is_file():
        return None
    try:
        return adapter.validate_json(read_small(path))
    except ValidationError as error:
        text, cause = f"{path.as_posix()} is not what was measured: {mistake(error)}", error
    except (OSError, ValueError) as other:
        text, cause = f"{path.as_posix()} cannot be read: {other}", other  # type: ignore[assignment]
    raise fail("SE401", text, "measure again, with `sesurgery verify` or `sesurgery bench`") from cause


def reason_file(run: Path, engine: Path) -> Path:
    return run / FOLDER / f"{engine.name}.not-verified.txt"


def reason(run: Path, engine: Path) -> str | None:
    """Why an engine was not verified, where that was written down."""
    path = reason_file(run, engine)
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else None


def forget(run: Path, engine: Path) -> None:
    """Take away what was measured of an engine that is gone."""
    for path in (parity_file(run, engine), latency_file(run, engine), reason_file(run, engine)):
        path.unlink(missing_ok=True)


def files_of(engine: Path, manifest: EngineManifest) -> tuple[Path, ...]:
    """An engine's own file, and those that belong to it."""
    return tuple(belonging(engine, manifest))


def latency_sections(run: Path, engine: Path, manifest: EngineManifest, weights: str) -> tuple[LatencySection, ...]:
    """How fast an engine was found to be; nothing where that was measured of another one."""
    found = read(LATENCY, latency_file(run, engine))
    return found.sections if found and found.of == Of(manifest.sha256, weights) else ()


def engine_section(run: Path, engine: Path, manifest: EngineManifest, weights: str) -> EngineSection:
    """What a report says of an engine: how it was built, and its parity or why there is none.

    What was measured of another engine of this name, or beside other `weights` than the run has now, is not told.
    """
    details = manifest.details
    stale = _stale(run, engine, manifest, weights)
    parity = None if stale else read(PARITY, parity_file(run, engine))
    if parity and parity.of != Of(manifest.sha256, weights):
        parity = None
    return EngineSection(
        backend=details.backend,
        precision=details.precision,
        file=engine.as_posix(),
        build_seconds=details.seconds,
        convolutions=details.convolutions,
        parity=parity.entries if parity else (),
        not_verified=None if parity else stale or reason(run, engine) or "it was not verified yet",
        unverified=parity.unverified if parity else (),
        size_bytes=sum(path.stat().st_size for path in files_of(engine, manifest)),
        notes=details.notes,
        kept_fp32=details.kept_fp32,
    )


def _stale(run: Path, engine: Path, manifest: EngineManifest, weights: str) -> str | None:
    """Why nothing that was measured of an engine holds now, and what to do; None where it does."""
    try:
        require_intact(engine)
        freshness.require_current(engine, manifest, run, weights)
    except SesurgeryError as error:
        told = error.diagnostics[0]
        return f"stale: {told.message}; {told.hint}"
    return None
