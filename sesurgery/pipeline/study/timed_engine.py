"""How long the engines of a study would take: one is built of an untrained network, loaded and run a few times."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sesurgery.artifacts import write_text
from sesurgery.spec import Spec
from sesurgery.spec.latency import Latency
from sesurgery.temporaries import folder_for
from sesurgery.training.data import data_of
from sesurgery.verification.latency import MOST_TIMES
from sesurgery.verification.placements import named, rounds_each
from sesurgery.workspace.folders import Workspace

RUNS = 5


@dataclass(frozen=True)
class EngineTime:
    """Seconds to export and build an engine, to score it on the held-out samples, to load it, and of a run of it."""

    build: float
    score: float
    load: float
    run: float


def engine_time(spec: Spec, number: int) -> EngineTime:
    """The times of one of the spec's engines, with untrained weights. Raises what building it here raises."""
    from sesurgery.pipeline.apply import apply
    from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines
    from sesurgery.verification.batches import limits, timed
    from sesurgery.verification.fresh_process import engine_file
    from sesurgery.verification.placements import measure

    held_out, batch = data_of(spec).held_out, timed(spec.latency, spec.engines[number]).batch
    with folder_for("estimate") as name:
        folder = Path(name)
        write_text(folder / "spec.yaml", spec.text())
        workspace = Workspace(folder)
        run = apply(spec, workspace, (folder / "spec.yaml").as_posix()).folder
        begun = time.perf_counter()
        (built,) = build_engines(EnginesRequest(run, workspace, (spec.engines[number],)))
        build = time.perf_counter() - begun
        file = engine_file(spec.name, built.path, built.manifest, spec.latency.threads or len(os.sched_getaffinity(0)))
        begun = time.perf_counter()
        with file.load() as runner:
            load = time.perf_counter() - begun
            size = limits(built.manifest.details.engine, runner, spec.input.shape).optimal
            images = np.resize(held_out.images[: max(size, batch)].numpy(), (max(size, batch), *spec.input.shape))
            scored, raced = (named(runner, {"input": images[:each]}) for each in (size, batch))
            measure(runner, scored, 1)
            scoring = float(np.median(measure(runner, scored, RUNS)))
            one = scoring if size == batch else float(np.median(measure(runner, raced, RUNS)))
    return EngineTime(build, scoring * len(held_out) / size, load, one)


def race_seconds(engines: Collection[EngineTime], plan: Latency) -> float:
    """Of a race of these engines, the placements that are added to make the interval narrow counted at their most."""
    each = sum(engine.load + rounds_each(plan) * (plan.repeats + 1) * engine.run for engine in engines)
    once = plan.placements * each + 2 * plan.warmup_seconds * len(engines)
    if plan.processes > 1:
        return plan.processes * once
    return once + (0.0 if plan.half_width is None else min(plan.more_seconds, (MOST_TIMES - 1) * once))
