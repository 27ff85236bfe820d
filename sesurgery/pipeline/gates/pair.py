"""Two engines in a folder that goes again, one with gates folded and one as it is: how they are built and raced."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sesurgery.backends.base import Array
from sesurgery.lowering.base import name_of
from sesurgery.lowering.passes.constant_gates import ConstantGates
from sesurgery.pipeline.build_engine.building import BuildResult, build
from sesurgery.pipeline.build_engine.request import BuildRequest, labelled
from sesurgery.pipeline.specs import engine
from sesurgery.spec.engines import Engine
from sesurgery.spec.latency import Latency
from sesurgery.spec.passes import NamedPass
from sesurgery.talk import Talk
from sesurgery.verification.estimates import Tax
from sesurgery.verification.fresh_process import engine_file, race
from sesurgery.workspace.folders import Workspace

PASS, OWN_BOUND = name_of(ConstantGates()), ConstantGates().bound
AS_IT_IS, FOLDED = "as it is", "folded"


def pass_within(bound: float) -> str:
    """The pass that folds what is constant within a bound, as specs and `lower` name it."""
    return str(NamedPass(PASS, {} if bound == OWN_BOUND else {"bound": bound}))


def built(
    onnx: Path, name: str, wanted: Engine, folder: Path, talk: Talk, lowering: tuple[str, ...] | None = None
) -> BuildResult:
    """The engine of a file under one of the two names; `lowering` as in a `BuildRequest`."""
    label = name.replace(" ", "-")
    given = wanted.model_dump(mode="json", by_alias=True)
    # A name of its own: what was measured of a run's engine of that name stays.
    own = engine({**given, "name": labelled(wanted, label)})
    return build(BuildRequest(onnx, own, Workspace(folder / label), talk, lowering))


def raced(
    folded: BuildResult, as_it_is: BuildResult, feeds: Mapping[str, Array], latency: Latency, talk: Talk
) -> tuple[Tax, str | None]:
    """The time of the folded engine over the other's minus one, and what is doubtful of it."""
    threads = latency.threads or len(os.sched_getaffinity(0))
    files = [
        engine_file(name, each.path, each.manifest, threads) for name, each in ((FOLDED, folded), (AS_IT_IS, as_it_is))
    ]
    report = race(files, feeds, latency, talk.progress)
    assert report.tax is not None
    return report.tax, report.doubt
