"""The verb `bench`: an engine raced against the plain network's engine, and against its own network as exported.

An engine that came from no run, or an ONNX file, races against one that is named; nothing is kept of such a race.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sesurgery.backends.base import Array, Backend, RunTimes, TimesParts
from sesurgery.networks import checkpoint
from sesurgery.pipeline.bench.request import BenchRequest
from sesurgery.pipeline.bench.rivals import Rivals, rivals_of
from sesurgery.pipeline.build_engine.engine_files import as_engine
from sesurgery.pipeline.specs import catalogs
from sesurgery.reports import results
from sesurgery.reports.model import LatencySection, PartTimes
from sesurgery.reports.wording import plural
from sesurgery.spec.latency import Latency
from sesurgery.training.data import data_of
from sesurgery.verification import service
from sesurgery.verification.batches import timed, tuned_for
from sesurgery.verification.fresh_process import EngineFile, race
from sesurgery.verification.noise import noise
from sesurgery.verification.placements import named
from sesurgery.verification.service import EngineService
from sesurgery.workspace.measurements import Of


@dataclass(frozen=True)
class BenchResult:
    """One race for each batch asked for. `as_exported` is None where lowering did nothing, `run` without a run."""

    engine: Path
    against: Path
    run: Path | None
    sections: tuple[LatencySection, ...]
    as_exported: Path | None = None

    @property
    def section(self) -> LatencySection:
        """That of the first batch."""
        return self.sections[0]


def bench(request: BenchRequest) -> BenchResult:
    """Time an engine in turn with its rivals, which are built where they are missing or stale.

    Raises SE603 where one of the engines cannot run here, SE401 where the run was trained again after one of them was
    built, and SE402 where there is neither a run nor a rival.
    """
    rivals = rivals_of(replace(request, engine=as_engine(request.engine, request.workspace, talk=request.talk)))
    (engine, manifest), (against, _) = rivals.engine, rivals.against
    sections = _races(request, rivals)
    if rivals.folder is not None and rivals.weights is not None:
        digests = Of(manifest.sha256, rivals.weights)
        results.LATENCY.write(rivals.folder, engine.name, results.Latency(digests, sections))
    as_exported = rivals.as_exported[0] if rivals.as_exported else None
    return BenchResult(engine, against, rivals.folder, sections, as_exported)


def _races(request: BenchRequest, rivals: Rivals) -> tuple[LatencySection, ...]:
    from sesurgery.networks.export import INPUT

    details = rivals.engine[1].details
    if rivals.folder is not None:
        spec = checkpoint.read_spec(rivals.folder, catalogs())
        latency, images = timed(spec.latency, details.engine), data_of(spec).held_out.images
    else:
        # Without a spec: its defaults, at the batch that the engine is tuned for.
        latency, images = Latency(batch=tuned_for(details.engine)), None
    sections = []
    for batch, threads in itertools.product(
        request.batches or (latency.batch,), request.threads or (latency.threads or service.cores(),)
    ):
        files = rivals.files(threads)
        processes = request.processes or latency.processes
        options = latency.model_copy(update={"batch": batch, "processes": processes})
        feeds = _noise(files[0], details.engine.shapes, batch) if images is None else {INPUT: images[:batch].numpy()}
        report = race(files, feeds, options, request.talk.progress)
        title = f"{details.backend} {details.precision}, batch {batch}"
        # Only a sweep has several of one batch.
        title += f", {plural(threads, 'thread')}" if request.threads else ""
        mode = f"{plural(threads, 'CPU thread')}, the run alone, no transfers"
        served = _services(request, files, feeds, processes) if request.service else ()
        in_parts = _in_parts(files, feeds, options)
        sections.append(
            LatencySection(
                title=title,
                mode=mode,
                report=report,
                parts=tuple(line for name, times in in_parts.items() for line in (f"{name}, in parts:", str(times))),
                services=served,
                threads=threads,
                part_times=tuple(_part_times(name, times) for name, times in in_parts.items()),
            )
        )
    return tuple(sections)


def _services(
    request: BenchRequest, files: Sequence[EngineFile], feeds: Mapping[str, Array], processes: int
) -> tuple[EngineService, ...]:
    streams = request.streams or tuple(dict.fromkeys((1, service.cores())))
    request.talk.say(f"starting {plural(len(files), 'engine')} cold, then answering in streams")
    return service.measure_all(files, feeds, streams, processes, request.talk.progress)


def _noise(file: EngineFile, shapes: tuple[str, ...], batch: int) -> Mapping[str, Array]:
    with file.load() as runner:
        return noise(runner, shapes, batch)


def _in_parts(files: list[EngineFile], feeds: Mapping[str, Array], options: Latency) -> dict[str, RunTimes]:
    """Times of each engine in parts (copies, compute, launch), for engines that do not run in the host's memory."""
    found: dict[str, RunTimes] = {}
    for file in files:
        with file.load() as runner:
            own = named(runner, feeds)
            if not isinstance(runner, TimesParts):
                # If the engine itself has no parts, the others need not be loaded.
                break
            found[file.name] = runner.timings(own, options.repeats * options.rounds)
    return found


def _part_times(name: str, times: RunTimes) -> PartTimes:
    seconds = {part: tuple(runs.tolist()) for part, runs in times.parts.items()}
    return PartTimes(name, seconds, times.throughput)


def can_run(backend: Backend) -> str | None:
    """Why engines of this backend cannot run here, or None."""
    return backend.probe().runs
