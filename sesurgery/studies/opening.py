"""A study's storage opened: Optuna's journal in the study's folder, or a database by its address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage

from sesurgery.diagnostics import SesurgeryError, described, fail, first_line
from sesurgery.spec.study import Study
from sesurgery.studies.cells import grid
from sesurgery.studies.heartbeat import with_heartbeat
from sesurgery.studies.parameters import SEED
from sesurgery.studies.storage import Storage, with_parameters
from sesurgery.studies.turns import held


def opened(name: str, asked: Study, folder: Path) -> Storage:
    """The study in its storage, made where it is not there yet, with every cell of a grid waiting.

    Raises SE405 if the storage holds a study of this name over other axes, and SE801 if it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as turn:
        with _told(asked):
            turn.enter_context(held(folder, asked))
        with _told(asked):
            kept = _backend(asked, folder)
            study = _made(name, kept)
        storage = Storage(study, asked, folder, kept if isinstance(kept, RDBStorage) else None)
        _require_same(storage)
        if asked.search == "grid":
            present = {(storage.cell_of(each).key, each.params[SEED]) for each in with_parameters(storage)}
            for cell in grid(asked):
                for seed in asked.seeds:
                    if (cell.key, seed) not in present:
                        storage.wait(cell, seed)
    return storage


@contextmanager
def _told(asked: Study) -> Iterator[None]:
    """Raise SE801 for whatever a storage that cannot be reached raises."""
    try:
        yield
    except SesurgeryError:
        raise
    except ImportError as error:
        kind = str(asked.storage).partition(":")[0]
        hint = "pip install 'sesurgery[postgresql]'" if kind.startswith("postgresql") else "install it with pip"
        # Optuna's own message names no package.
        why = first_line(error.__cause__ or error)
        raise fail("SE801", f"the storage of the study needs a driver for {kind}: {why}", hint) from error
    except Exception as error:
        text = f"the storage of the study cannot be opened: {described(error)}"
        raise fail("SE801", text, "see `study: storage`; left out, it is a file of the study's folder") from error


def _made(name: str, storage: RDBStorage | JournalStorage) -> optuna.Study:
    """Optuna's own study, as it is or new."""
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        # Epochs count from 1: the first is not judged.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )


def _require_same(storage: Storage) -> None:
    # More seeds, or more cells, go on with the same study; other axes are another one.
    text = json.dumps({path: str(axis) for path, axis in storage.asked.axes.items()})
    known = storage.study.user_attrs.get("axes")
    if known is None:
        storage.study.set_user_attr("axes", text)
    elif known != text:
        message = f"the storage holds a study {storage.study.study_name!r} over other axes"
        raise fail("SE405", message, f"give the spec another `name`, or take {storage.folder.as_posix()}/ away")


def _backend(asked: Study, folder: Path) -> RDBStorage | JournalStorage:
    if asked.storage is not None:
        return with_heartbeat(asked.storage)
    from sesurgery.studies.journal import Journal

    return JournalStorage(Journal(folder / "journal.log"))
