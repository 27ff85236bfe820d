"""Which networks can be operated on: every step on every model, with the reason where one fails.

    python benchmarks/zoo.py                 torchvision's convolutional classifiers and the sample of timm below
    python benchmarks/zoo.py --from huggingface   the image classes and backbones of transformers that convolve
    python benchmarks/zoo.py --from ultralytics   families and tasks of Ultralytics, where it is installed
    python benchmarks/zoo.py --from pytorchcv smp monai pretrainedmodels efficientnet_pytorch    other libraries
    python benchmarks/zoo.py --from detectors     torchvision's detectors, operated on through `submodule: backbone`
    python benchmarks/zoo.py timm:resnet18   some models
    python benchmarks/zoo.py --fill 600      younger columns of rows that lack them, the quickest rows first
    python benchmarks/zoo.py --table         docs/support.md from the committed results

A model is given the first of the placements residual, concat, conv that finds sites in it, with identity blocks, at the
smallest input that it takes. It passes a column when

    plan     sites are found
    apply    the blocks are inserted and proved to run
    equal    outputs in evaluation equal the original's (largest difference at most 1e-5 of the largest output)
    train    one training step gives a finite gradient to some parameter of every block, and to no one else's less
    modes    train() and eval() reach every module, and evaluation after it still equals the original
    replay   a run that is saved and read back gives the same outputs
    export   the ONNX file agrees with the model at two batch sizes other than the exported one, in ONNX Runtime
             (largest difference at most 1e-3 of the largest output)

and two younger columns, of their own, are

    keys     every key of the original is there, with its value
    sites    planned on the ONNX file of the network as it was, the same keys, channels and resolutions come out

Equal outputs say something only where outputs depend on the image. Those of some fresh networks do not (weights with a
deviation of 0.02 through twenty layers): where another image moves no output by a hundredth of the largest, the network
gets weights that let the image through, layer by layer. `moves`, a younger column too, says by how much another image
moves them in the end.

Where a part of a network is operated on, the columns are about the part; `keys`, `modes` and `replay` take the whole.

Each model has a process of its own with a time limit. Results are added to benchmarks/results/zoo.json as they come, so
that a run that was stopped goes on where it was. `--again` examines models that have a result already. `--fill SECONDS`
measures the younger columns that passing rows lack, and nothing else, for that long. A row stays as it is, and that is
told, where its plan is another one now or it cannot be measured; where outputs differ, its `equal` becomes false.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Here, and not where it is used: a child that is forked while another thread imports waits for it for ever.
import zoo_libraries
import zoo_sources

from sesurgery.artifacts import cpu_name, locked, to_json, versions, write_text

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "zoo.json"
TABLE = ROOT.parent / "docs" / "support.md"
COLUMNS = ("plan", "apply", "equal", "train", "modes", "replay", "export")
YOUNGER = {
    "sites_agree": ("sites_agree",),
    "keys": ("keys",),
    "moves": ("moves", "drawn", "difference", "equal"),
}
"""The columns that rows may lack, each with what is measured together with it."""
SECONDS = 400


def measure(models: list[str], again: bool, seconds: int, jobs: int) -> None:
    """Examine the models that have no result yet, some at a time."""
    _warm()
    from zoo_steps import examine

    known = set() if again else {row["model"] for row in _results()}
    todo = {model: examine for model in models if model not in known}
    for count, row in enumerate(_looked_at(todo, seconds, jobs), start=1):
        _add(row)
        verdict = "pass" if _passes(row) else "FAIL"
        print(f"{count}/{len(todo)} {verdict} {row['model']} {row.get('reason', '')}", flush=True)


def fill(limit: int, seconds: int, jobs: int) -> None:
    """Measure the younger columns of rows that lack some, the quickest rows first, for `limit` seconds in all."""
    _warm()
    import zoo_steps

    rows = {row["model"]: row for row in sorted(_results(), key=lambda row: row["seconds"]) if missing(row)}
    todo = {model: partial(zoo_steps.fill, columns=missing(row)) for model, row in rows.items()}
    for count, found in enumerate(_looked_at(todo, seconds, jobs, limit), start=1):
        row, said = filled(rows[found["model"]], found)
        if row is not None:
            _add(row, stamped=False)
        print(f"{count}/{len(todo)} {found['model']} {said}", flush=True)


def missing(row: Row) -> tuple[str, ...]:
    """The younger columns that a row lacks; none where it does not pass."""
    return tuple(column for column in YOUNGER if column not in row) if _passes(row) else ()


def filled(row: Row, found: Row) -> tuple[Row | None, str]:
    """The row with the columns that it lacked, None where it stays as it is, and what is to be told."""
    other = [key for key in ("placement", "size", "sites") if found.get(key, row[key]) != row[key]]
    if other:
        key = other[0]
        return None, f"has {key} {found[key]} now, not {row[key]}: measure its row again"
    if "reason" in found and found.get("equal", True):
        return None, f"stays as it is: {found['reason']}"
    new = {key: found[key] for column in missing(row) for key in YOUNGER[column] if key in found}
    if "reason" in found:
        new["reason"] = found["reason"]
    return row | new, " ".join(f"{key}={value}" for key, value in new.items())


def _passes(row: Row) -> bool:
    return all(row.get(column) for column in COLUMNS)


def _looked_at(
    todo: dict[str, Callable[[str], Row]], seconds: int, jobs: int, limit: float = math.inf
) -> Iterator[Row]:
    """What each look at a model gives, as they come; none is begun after `limit` seconds."""
    started = time.monotonic()

    def look(model: str) -> Row:
        return {} if time.monotonic() - started > limit else _alone(model, todo[model], seconds)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(look, model) for model in todo]):
            if row := done.result():
                yield row


def _alone(model_id: str, look: Callable[[str], Row], seconds: int) -> Row:
    """Look at one model in a child that is ended when its time is up."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        os.setpgrp()
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the exporter talks)
        sender.send(look(model_id))

    child = context.Process(target=work)
    child.start()
    sender.close()
    try:
        row = receiver.recv() if receiver.poll(seconds) else {"model": model_id, "reason": f"took over {seconds} s"}
    except EOFError:
        child.join(5)
        row = {"model": model_id, "reason": f"the process ended with {child.exitcode}"}
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return row


def _warm() -> None:
    """Import what every child needs, and let the exporter read its registry, once and before any thread is started."""
    import onnxruntime  # noqa: F401
    import torch
    import zoo_steps  # noqa: F401

    from sesurgery import pipeline
    from sesurgery.networks import export
    from sesurgery.spec.export import Export

    torch.set_num_threads(1)
    pipeline.catalogs()
    export.convert(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)).eval(), (3, 8, 8), Export())


def _results() -> list[Row]:
    return json.loads(RESULTS.read_text())["models"] if RESULTS.is_file() else []


def _add(row: Row, *, stamped: bool = True) -> None:
    """Write one row in, with this machine unless it has its own; another run of this program may be writing others."""
    with locked(RESULTS.parent):
        rows = {known["model"]: known for known in _results()}
        source = str(row["model"]).partition(":")[0]
        stamp = {"device": cpu_name(), "versions": versions() | zoo_libraries.version(source)}
        rows[row["model"]] = row | (stamp if stamped else {})
        before = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        # What rows without a machine of their own were measured on.
        first = {key: before.get(key, given) for key, given in (("device", cpu_name()), ("versions", versions()))}
        data = {**first, "models": [rows[key] for key in sorted(rows)]}
        write_text(RESULTS, to_json(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    known = [*zoo_sources.by_source(0)]
    parser.add_argument("--from", dest="source", choices=known, nargs="+", help="of these alone")
    parser.add_argument("--again", action="store_true", help="examine models that have a result already, too")
    parser.add_argument("--fill", type=int, metavar="SECONDS", help="measure what rows lack of younger columns")
    parser.add_argument("--jobs", type=int, default=2, help="models at a time")
    parser.add_argument("--table", action="store_true", help="write docs/support.md from the results")
    parser.add_argument("--per-module", type=int, default=2, help="models of every module of timm")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="time limit of one model")
    given = parser.parse_args()
    if given.table:
        from zoo_table import write_table

        write_table(RESULTS, TABLE, COLUMNS)
        return
    if given.fill is not None:
        fill(given.fill, given.seconds, given.jobs)
        return
    sources = zoo_sources.by_source(given.per_module)
    chosen = given.source or ["torchvision", "timm"]
    models = given.models or zoo_sources.by_size([model for source in chosen for model in sources[source]()])
    measure(models, given.again, given.seconds, given.jobs)


if __name__ == "__main__":
    main()
