"""A study's trials on a Ray cluster: each of its workers takes trials from the study's storage, as any process does.

Ray starts the workers, finds them room, and starts another where one died; who runs which trial is Optuna's storage to
tell. So a cluster and processes started by hand can share one study.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sesurgery.diagnostics import described, fail, first_line
from sesurgery.pipeline.specs import load_spec
from sesurgery.pipeline.study.study import StudyResult, repeat_doubtful_race, retry_failed, study, study_results
from sesurgery.talk import Silent, Talk
from sesurgery.workspace.folders import Workspace

HERE = "local"
"""The address that starts Ray on this machine alone, and ends it with the study."""
HINT = f"give the address of its head, as in ray://HOST:10001 or HOST:6379, or {HERE!r} for this machine"
PATIENCE = 2.0
"""Seconds in which whoever listens has to answer."""


@dataclass(frozen=True)
class ClusterRequest:
    """A study's spec, and the cluster that runs it: its address, and how many workers, by default all it has room for.

    Every machine of the cluster must see the spec and the workspace under the same path. `talk` speaks here; a copy of
    `worker_talk` speaks in each worker, whose output Ray shows on stderr here.
    """

    spec: Path
    workspace: Workspace
    address: str
    workers: int | None = None
    retry: bool = False
    talk: Talk = field(default_factory=Silent)
    worker_talk: Talk = field(default_factory=Silent)


def study_on_ray(request: ClusterRequest) -> StudyResult:
    """Run the trials that nobody has taken on a cluster, and write the answer into studies/NAME/.

    Raises SE801 if Ray is not installed, the cluster cannot be reached, or has no room for a worker.
    """
    ray = _ray()
    _require_listener(request.address)
    path, workspace = request.spec.absolute(), Workspace(request.workspace.root.absolute())
    spec = load_spec(path)
    before = study_results(spec, workspace)
    try:
        with _own_signals():
            ray.init(address=request.address, log_to_driver=True, logging_level="error", include_dashboard=False)
    except Exception as error:  # Ray raises anything where it finds no cluster
        text = f"the Ray cluster at {request.address!r} cannot be reached: {described(error)}"
        raise fail("SE801", text, HINT) from error
    try:
        threads = spec.train.threads or 1
        gpu = 1 if ray.cluster_resources().get("GPU", 0) else 0
        room = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0) // (1 if gpu else threads))
        workers = request.workers or room
        if not 0 < workers <= room:
            text = f"the cluster has room for {room} workers of {threads} threads{' and a GPU' if gpu else ''} each"
            raise fail("SE801", text, "ask for fewer with --workers, or give `train: threads` a smaller number")
        request.talk.say(f"{workers} workers on the cluster at {request.address}")
        # A worker that dies is started again without end: its trial goes on from its checkpoint.
        run = ray.remote(num_cpus=threads, num_gpus=gpu, max_retries=-1)(_trials)
        given = (path.as_posix(), workspace.root.as_posix(), request.spec.as_posix(), request.worker_talk)
        if request.retry:
            # Before any worker begins: one that finds nothing to do ends.
            retry_failed(spec, workspace, request.talk)
        _wait(ray, [run.remote(*given) for _ in range(workers)])
        if request.retry:
            # By one of them, once all have ended: whichever ends last has raced what had not raced before.
            _wait(ray, [ray.remote(num_cpus=threads, num_gpus=gpu)(_race).remote(*given)])
    finally:
        ray.shutdown()
    after = study_results(spec, workspace)
    return StudyResult(after.folder, after.answer, _trained(after) - _trained(before))


def _require_listener(address: str) -> None:
    """Raise SE801 if nobody listens at an address: Ray would try for over a minute, and take no interrupt meanwhile."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise fail("SE801", f"nobody listens at {address!r}: {first_line(error)}", HINT) from error


def _trained(found: StudyResult) -> int:
    return sum(row.trials for row in found.answer.rows)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise fail("SE801", f"--ray needs Ray: {first_line(error)}", "pip install 'sesurgery[ray]'") from error
    return ray


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the SIGTERM handler afterwards: Ray installs its own and never removes it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _wait(ray: Any, waiting: list[Any]) -> None:
    try:
        ray.get(waiting)
    except KeyboardInterrupt:
        # Each worker is interrupted and leaves its trial to the process that resumes the study.
        for each in waiting:
            ray.cancel(each)
        ray.wait(waiting, num_returns=len(waiting), timeout=30)
        raise
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from error


def _trials(spec: str, root: str, origin: str, talk: Talk) -> None:
    """What a worker does: trials until none is left to begin."""
    os.chdir(root)
    study(load_spec(Path(spec)), Workspace(Path(root)), origin, talk)


def _race(spec: str, root: str, origin: str, talk: Talk) -> None:
    os.chdir(root)
    repeat_doubtful_race(load_spec(Path(spec)), Workspace(Path(root)), origin, talk)
