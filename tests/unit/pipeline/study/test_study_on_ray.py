"""A study on a Ray cluster of this machine: the same table, also where a worker was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fixtures.studies import ALONE

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import Workspace
from sesurgery.pipeline.study.on_ray import HERE, ClusterRequest, study_on_ray
from sesurgery.studies.opening import opened


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(dict(ALONE)))
    return file


def workers() -> list[int]:
    """The processes of this machine that run trials for Ray."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_trials"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_one(folder: Path, killed: list[int]) -> None:
    """Kill a worker as soon as a trial's run is there, which it is while the trial goes on."""
    until = time.monotonic() + 120
    while time.monotonic() < until and not killed:
        if list((folder / "runs").glob("*/weights.safetensors")) and (found := workers()):
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])
        time.sleep(0.02)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_give_the_table_of_one_process(
    tmp_path: Path, spec: Path, studied: Path
) -> None:
    pytest.importorskip("ray")
    alone = pipeline.study_results(pipeline.load_spec(spec), Workspace(studied))
    cluster, killed, handler = tmp_path / "cluster", [], signal.getsignal(signal.SIGTERM)
    cluster.mkdir()
    killer = threading.Thread(target=kill_one, args=(cluster / "studies" / "tiny", killed))
    killer.start()
    done = study_on_ray(ClusterRequest(spec, Workspace(cluster), HERE, workers=2))
    killer.join()
    assert killed
    # Ray's own handler would not end a command as ours does.
    assert signal.getsignal(signal.SIGTERM) is handler
    assert done.answer.rows == alone.answer.rows
    assert [(row.trials, row.failures) for row in done.answer.rows] == [(2, ()), (2, ())]
    with pytest.raises(SesurgeryError, match=r"SE801.*room for \d+ workers of 1 threads each"):
        study_on_ray(ClusterRequest(spec, Workspace(cluster), HERE, workers=4096))


@pytest.fixture
def head() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster that somebody has started: the address of its head, and the process that keeps it up."""
    pytest.importorskip("ray")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    options = ["--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    started = subprocess.Popen([ray, "start", *options, "--block"], stdout=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and started.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.2)
    try:
        yield f"127.0.0.1:{port}", started
    finally:
        started.terminate()
        started.wait(60)


@pytest.mark.slow
def test_a_cluster_that_runs_already_takes_failed_trials_again(
    head: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, spec: Path, studied: Path
) -> None:
    loaded, (address, process) = pipeline.load_spec(spec), head
    storage = opened("tiny", loaded.study, tmp_path / "studies" / "tiny")
    with storage.take() as task:
        storage.fail(task, "planted")
    done = study_on_ray(ClusterRequest(spec, Workspace(tmp_path), address, workers=1, retry=True))
    assert done.answer.rows == pipeline.study_results(loaded, Workspace(studied)).answer.rows
    assert [(row.trials, row.failures) for row in done.answer.rows] == [(2, ()), (2, ())]
    # It is not ours to end.
    assert process.poll() is None


def test_without_ray_it_says_how_to_get_it(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SesurgeryError, match=r"(?s)SE801.*--ray needs Ray.*pip install 'sesurgery\[ray\]'"):
        study_on_ray(ClusterRequest(spec, Workspace(tmp_path), HERE))


class NoCluster:
    """Stands for Ray, which must not be asked to connect."""

    def init(self, **_: object) -> None:
        raise AssertionError("Ray tries for over a minute, and takes no interrupt meanwhile")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nobody_listens_it_says_so_at_once(
    scheme: str, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", NoCluster())
    with socket.socket() as bound:
        # Bound and not listening: nobody else can take the port meanwhile.
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(SesurgeryError, match=rf"SE801.*nobody listens at '{address}'.*refused"):
            study_on_ray(ClusterRequest(spec, Workspace(tmp_path), address))
    assert not (tmp_path / "studies").exists()


def test_an_address_without_a_port_is_left_to_ray(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def init(self, **given: object) -> None:
            raise ConnectionError(f"no cluster at {given['address']}")

        def shutdown(self) -> None:
            return

    monkeypatch.setitem(sys.modules, "ray", Refusing())
    with pytest.raises(SesurgeryError, match=r"SE801.*'auto' cannot be reached: ConnectionError: no cluster at auto"):
        study_on_ray(ClusterRequest(spec, Workspace(tmp_path), "auto"))
