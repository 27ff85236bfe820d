"""How often two processes run a point of a grid twice: by Optuna's BruteForceSampler, and by a study's queue.

    python benchmarks/repeated_draws.py                # ten studies of each kind
    python benchmarks/repeated_draws.py --studies 3

Two processes begin at once on a new storage, a grid of four values and three seeds, and points that take no time. What
is counted are trials beyond one for each point: decision 0032 shows one such count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import warnings
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sesurgery.spec.study import Study
from sesurgery.studies.answer import Outcome
from sesurgery.studies.opening import opened
from sesurgery.studies.storage import with_parameters

REDUCTIONS, SEEDS = (2, 4, 8, 16), (0, 1, 2)
KINDS = ("journal", "sqlite")
PROCESSES = multiprocessing.get_context("fork")


def brute_force(kind: str, folder: Path, begin: Barrier | None) -> list[tuple[object, object]]:
    """Take part in a study by BruteForceSampler; without `begin`, what all of its trials were about."""
    path = folder / "brute_force"
    study = optuna.create_study(
        storage=f"sqlite:///{path}.db" if kind == "sqlite" else JournalStorage(JournalFileBackend(f"{path}.log")),
        sampler=optuna.samplers.BruteForceSampler(),
        study_name="grid",
        load_if_exists=True,
    )
    if begin is not None:
        begin.wait()
        study.optimize(lambda trial: trial.suggest_categorical("r", REDUCTIONS) + trial.suggest_categorical("s", SEEDS))
        return []
    return [(trial.params["r"], trial.params["s"]) for trial in study.get_trials()]


def queue(kind: str, folder: Path, begin: Barrier | None) -> list[tuple[object, object]]:
    """The same by the queue of a study."""
    asked = Study(
        axes={"surgery[0].insert.reduction": REDUCTIONS},
        seeds=SEEDS,
        storage=f"sqlite:///{folder}/queue.db" if kind == "sqlite" else None,
    )
    storage = opened("grid", asked, folder / "queue")
    if begin is None:
        return [(storage.cell_of(trial).key, trial.params["seed"]) for trial in with_parameters(storage)]
    begin.wait()
    while True:
        with storage.take() as task:
            if task is None:
                return []
            storage.keep(task, Outcome(task.cell, task.seed, "none", 0.5, 1, 1, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10)
    studies = parser.parse_args().studies
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for way in (brute_force, queue):
        for kind in KINDS:
            extra = []
            for _ in range(studies):
                with tempfile.TemporaryDirectory() as folder:
                    way(kind, Path(folder), None)
                    begin = PROCESSES.Barrier(2)
                    both = [PROCESSES.Process(target=way, args=(kind, Path(folder), begin)) for _ in range(2)]
                    for process in both:
                        process.start()
                    for process in both:
                        process.join()
                    trials = way(kind, Path(folder), None)
                    extra.append(len(trials) - len(set(trials)))
            print(f"{way.__name__:12} {kind:8} trials that repeat a point, by study: {extra}", flush=True)


if __name__ == "__main__":
    main()
