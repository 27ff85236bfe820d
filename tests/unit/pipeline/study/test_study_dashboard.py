"""A study in optuna-dashboard, opened by the commands of docs/studies.md and asked over HTTP."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from fixtures.pages import ROOT, blocks
from fixtures.postgresql import DATABASES
from fixtures.processes import HANGS
from fixtures.studies import score, spec_with

from sesurgery import pipeline
from sesurgery.pipeline import Workspace
from sesurgery.studies.cells import Cell

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
(COMMANDS,) = [
    block.commands for block in blocks(ROOT / "docs" / "studies.md") if "\noptuna-dashboard " in f"\n{block.text}"
]
REDUCTION = "surgery[0].insert.reduction"


def command(storage: str | None) -> list[str]:
    """The command of the page for a storage, with the name and the address filled in."""
    word = "STORAGE" if storage else "NAME"
    (line,) = [line for line in COMMANDS if line.startswith("optuna-dashboard ") and word in line.partition("#")[0]]
    return shlex.split(re.sub(rf"\b{word}\b", storage or "tiny", line), comments=True)


@contextmanager
def dashboard(folder: Path, words: list[str]) -> Iterator[str]:
    """The address of a dashboard that a command started in a folder."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    program = Path(sys.executable).with_name(words[0])
    with (folder / "dashboard.txt").open("w") as told:
        process = subprocess.Popen(
            [program, *words[1:], "--port", str(port)], cwd=folder, stdout=told, stderr=subprocess.STDOUT
        )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + HANGS
    try:
        while True:
            try:
                urlopen(f"{address}/api/meta").close()
                break
            except URLError:
                assert process.poll() is None, (folder / "dashboard.txt").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def told(address: str) -> dict[str, object]:
    with urlopen(address) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", *DATABASES], indirect=True)
def test_the_dashboard_shows_the_trials_with_their_parameters_and_scores(tmp_path, ran, storage):
    pipeline.study(spec_with(storage=storage), Workspace(tmp_path), "tiny.yaml")
    with dashboard(tmp_path, command(storage)) as address:
        (summary,) = told(f"{address}/api/studies")["study_summaries"]
        study = told(f"{address}/api/studies/{summary['study_id']}")
    assert (summary["study_name"], summary["directions"]) == ("tiny", ["maximize"])
    assert [trial["state"] for trial in study["trials"]] == ["Complete"] * 9
    found = {}
    for trial in study["trials"]:
        parameters = {each["name"]: each["param_external_value"] for each in trial["params"]}
        found[parameters["network"], parameters.get(REDUCTION), parameters["seed"]] = trial["values"]
        assert {each["key"]: each["value"] for each in trial["user_attrs"]}["params"] == "100"
    cells = {("plain", None): Cell({}, plain=True), **{("blocks", str(n)): Cell({REDUCTION: n}) for n in (2, 4)}}
    assert found == {(*key, str(seed)): [score(cell, seed)] for key, cell in cells.items() for seed in range(3)}
