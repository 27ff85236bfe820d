"""The verb `run`: the whole way, from the spec to the report."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.diagnostics import Diagnostic
from sesurgery.pipeline.apply import NewRun, apply
from sesurgery.pipeline.bench.bench import BenchResult, bench, can_run
from sesurgery.pipeline.bench.request import BenchRequest
from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines, obstacle
from sesurgery.pipeline.build_engine.building import BuildResult
from sesurgery.pipeline.report import ReportFiles, write_report
from sesurgery.pipeline.specs import backend_of
from sesurgery.pipeline.train import TrainRequest, TrainResult, train
from sesurgery.pipeline.verify.verify import VerifyResult, verify
from sesurgery.spec import Spec
from sesurgery.talk import Silent, Talk
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.measurements import write_reason


@dataclass(frozen=True)
class RunResult:
    """Everything a run made. After ^C in training, only what came before."""

    applied: NewRun
    trained: TrainResult
    built: tuple[BuildResult, ...] = ()
    verified: tuple[VerifyResult, ...] = ()
    benched: tuple[BenchResult, ...] = ()
    reported: ReportFiles | None = None
    skipped: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Diagnostic, ...]:
        """Every criterion of parity that some engine did not meet."""
        return tuple(failure for item in self.verified for failure in item.failures)


def run(spec: Spec, workspace: Workspace, origin: str, talk: Talk | None = None) -> RunResult:
    """Apply, train, export, build every engine of the spec, verify, bench, report.

    A backend that is not installed is skipped with a message; an engine that cannot run here is built but not verified.
    """
    talk = talk or Silent()
    applied = apply(spec, workspace, origin)
    for note in applied.planned.notes:
        talk.say(f"note: {note}")
    talk.say(f"{applied.planned.summary()} -> {applied.folder.as_posix()}")
    trained = train(TrainRequest(applied.folder, talk=talk))
    if trained.result.interrupted:
        return RunResult(applied, trained)
    built: list[BuildResult] = []
    skipped: list[str] = []
    for engine in spec.engines:
        if (why := obstacle(engine)) is not None:
            skipped.append(f"{engine.backend.name} {engine.precision} was not built: {why}")
            talk.say(skipped[-1])
            continue
        built += build_engines(EnginesRequest(applied.folder, workspace, (engine,), talk=talk))
    verified: list[VerifyResult] = []
    benched: list[BenchResult] = []
    for item in built:
        why = can_run(backend_of(item.manifest))
        if why is not None:
            skipped.append(f"{item.path.name} was built, and cannot run here: {why}")
            talk.say(skipped[-1])
            write_reason(applied.folder, item.path, f"it cannot run here: {why}")
            continue
        talk.say(f"verifying {item.path.name}")
        verified.append(verify(item.path))
        talk.say(f"timing {item.path.name} against the plain network")
        benched.append(bench(BenchRequest(item.path, workspace, talk=talk)))
    reported = write_report(applied.folder, workspace)
    return RunResult(applied, trained, tuple(built), tuple(verified), tuple(benched), reported, tuple(skipped))
