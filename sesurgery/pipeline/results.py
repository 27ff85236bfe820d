"""Measurements kept beside a run as JSON, so that each verb adds its own and the report shows them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sesurgery.artifacts import Manifest, belonging
from sesurgery.diagnostics import fail
from sesurgery.reports.model import BatchParity, EngineSection, LatencySection

FOLDER = "reports"
PARITY: TypeAdapter[Any] = TypeAdapter(tuple[BatchParity, ...])
LATENCY: TypeAdapter[Any] = TypeAdapter(LatencySection)


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
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        text = f"{path.as_posix()} is not what was measured: {error.errors(include_url=False)[0]['msg']}"
        raise fail("SE401", text, "measure again, with `sesurgery verify` or `sesurgery bench`") from error


def reason_file(run: Path, engine: Path) -> Path:
    return run / FOLDER / f"{engine.name}.not-verified.txt"


def reason(run: Path, engine: Path) -> str | None:
    """Why an engine was not verified, where that was written down."""
    path = reason_file(run, engine)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def forget(run: Path, engine: Path) -> None:
    """Take away what was measured of an engine that is gone."""
    for path in (parity_file(run, engine), latency_file(run, engine), reason_file(run, engine)):
        path.unlink(missing_ok=True)


def files_of(engine: Path, manifest: Manifest) -> tuple[Path, ...]:
    """An engine's own file, and those that belong to it."""
    return tuple(belonging(engine, manifest))


def engine_section(run: Path, engine: Path, manifest: Manifest) -> EngineSection:
    """What a report says of an engine: how it was built, and its parity or why there is none."""
    details: Any = manifest.details
    parity = read(PARITY, parity_file(run, engine))
    return EngineSection(
        backend=details["backend"],
        precision=details["precision"],
        file=engine.as_posix(),
        build_seconds=details["seconds"],
        convolutions=details["convolutions"],
        parity=parity or (),
        not_verified=None if parity else reason(run, engine) or "it was not verified yet",
        size_bytes=sum(path.stat().st_size for path in files_of(engine, manifest)),
        notes=tuple(details["notes"]),
        kept_fp32=tuple(details.get("kept_fp32", ())),
    )
