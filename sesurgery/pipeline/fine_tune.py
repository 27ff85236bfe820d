"""A pruned spec, trained on from the weights of its run, compared with that run, and verified as an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.networks.weights import Taken
from sesurgery.pipeline.apply import apply
from sesurgery.pipeline.bench.bench import can_run
from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines, obstacle
from sesurgery.pipeline.compare import compare
from sesurgery.pipeline.specs import backend_of, engine, load_spec
from sesurgery.pipeline.train import TrainRequest, train
from sesurgery.pipeline.verify.verify import VerifyResult, verify
from sesurgery.spec import Spec
from sesurgery.talk import Silent, Talk
from sesurgery.verification.comparison import Comparison
from sesurgery.workspace.folders import Workspace


@dataclass(frozen=True)
class FineTuneRequest:
    """Train `spec` by its own recipe, beginning with the weights of `run`."""

    run: Path
    spec: Path
    workspace: Workspace
    talk: Talk = field(default_factory=Silent)


@dataclass(frozen=True)
class FineTuneResult:
    """The new run and the one it began with, on the same held-out samples.

    `removal` compares them before any training, `after` when it was done; None where a signal stopped it.
    `verified` is the parity of the first engine of the spec; None with `unverified`, the reason, where there is none.
    """

    run: Path
    began_with: Path
    taken: Taken
    removal: Comparison
    after: Comparison | None
    epochs: int
    signal: int | None
    verified: VerifyResult | None
    unverified: str | None


def fine_tune(request: FineTuneRequest) -> FineTuneResult:
    """Apply, compare, train, compare, build the spec's first engine, verify; raises what these raise."""
    spec = load_spec(request.spec)
    made = apply(spec, request.workspace, request.spec.as_posix(), request.run)
    assert made.taken is not None
    removal = compare(made.folder, request.run)
    request.talk.say(f"without training: held-out top-1 {removal.top1[0]:.2%}, {removal.top1[1]:.2%} before")
    trained = train(TrainRequest(made.folder, talk=request.talk))
    stopped = trained.result.signal
    found = "the training was stopped" if stopped else _verified(made.folder, spec, request)
    return FineTuneResult(
        run=made.folder,
        began_with=request.run,
        taken=made.taken,
        removal=removal,
        after=None if stopped else compare(made.folder, request.run),
        epochs=len(trained.result.epochs),
        signal=stopped,
        verified=None if isinstance(found, str) else found,
        unverified=found if isinstance(found, str) else None,
    )


def _verified(folder: Path, spec: Spec, request: FineTuneRequest) -> VerifyResult | str:
    """The parity of the spec's first engine, or why there is none."""
    wanted = next(iter(spec.engines), None) or engine()
    if (why := obstacle(wanted)) is not None:
        return f"{wanted.backend.name} {wanted.precision} was not built: {why}"
    (built,) = build_engines(EnginesRequest(folder, request.workspace, (wanted,), talk=request.talk))
    if (why := can_run(backend_of(built.manifest))) is not None:
        return f"{built.path.name} was built, and cannot run here: {why}"
    request.talk.say(f"verifying {built.path.name}")
    return verify(built.path, talk=request.talk)
