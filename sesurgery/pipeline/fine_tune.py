"""A pruned spec, trained on from the weights of its run, and compared with that run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.networks.weights import Taken
from sesurgery.pipeline.apply import apply
from sesurgery.pipeline.compare import compare
from sesurgery.pipeline.specs import load_spec
from sesurgery.pipeline.train import TrainRequest, train
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
    """

    run: Path
    began_with: Path
    taken: Taken
    removal: Comparison
    after: Comparison | None
    epochs: int
    signal: int | None


def fine_tune(request: FineTuneRequest) -> FineTuneResult:
    """Apply, compare, train, compare; raises what these raise."""
    made = apply(load_spec(request.spec), request.workspace, request.spec.as_posix(), request.run)
    assert made.taken is not None
    removal = compare(made.folder, request.run)
    request.talk.say(f"without training: held-out top-1 {removal.top1[0]:.2%}, {removal.top1[1]:.2%} before")
    trained = train(TrainRequest(made.folder, talk=request.talk))
    stopped = trained.result.signal
    return FineTuneResult(
        run=made.folder,
        began_with=request.run,
        taken=made.taken,
        removal=removal,
        after=None if stopped else compare(made.folder, request.run),
        epochs=len(trained.result.epochs),
        signal=stopped,
    )
