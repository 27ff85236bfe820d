"""Experiment trackers that a training reports to when asked: Weights & Biases and MLflow, by Lightning's loggers.

Where they send it (a server, a folder, nowhere) is decided by their own settings. A resumed training continues their
run. A tracker that fails in the middle of a training is dropped with a warning: the training matters more.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.artifacts import write_text
from sesurgery.diagnostics import fail, first_line
from sesurgery.spec.train import Train

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

PROJECT = "sesurgery"
IDS = "trackers.json"


class Trackers:
    """The trackers of a recipe for a training in `folder`; none are opened where the recipe names none."""

    def __init__(self, recipe: Train, folder: Path) -> None:
        self._recipe = recipe
        self._ids = folder / IDS
        self._open: dict[str, Logger] = {}

    def start(self, *, resumed: bool) -> None:
        """Open all of them, in the run of an earlier part of this training where it is resumed.

        Raises SE502 where a package is missing or a tracker does not open.
        """
        known = self._known() if resumed else {}
        for name in self._recipe.trackers:
            try:
                logger = _logger(name, self._ids.parent, known.get(name))
                # Once: a resumed training may have more epochs, and MLflow does not change a logged parameter.
                if name not in known:
                    logger.log_hyperparams(self._recipe.model_dump(mode="json", exclude={"trackers"}))
                known[name] = str(logger.version)
            except ModuleNotFoundError as error:
                raise fail(
                    "SE502",
                    f"the tracker {name!r} needs the package {name}",
                    "pip install 'sesurgery[trackers]', or leave it out of `trackers:`",
                ) from error
            # Each raises errors of its own kind: no login, no server, no such run.
            except Exception as error:
                text = f"the tracker {name!r} does not open: {first_line(error)}"
                raise fail("SE502", text, "mend its settings, or leave it out of `trackers:`") from error
            self._open[name] = logger
        if self._open:
            write_text(self._ids, json.dumps(known))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Report figures at an optimiser step."""
        for name, logger in list(self._open.items()):
            try:
                logger.log_metrics(dict(metrics), step)
            except Exception as error:
                self._leave_out(name, error)

    def close(self, *, done: bool) -> None:
        """Tell the trackers that the training finished, or was stopped."""
        for name, logger in list(self._open.items()):
            try:
                logger.finalize("success" if done else "aborted")
            except Exception as error:
                self._leave_out(name, error)
        self._open.clear()

    def _leave_out(self, name: str, error: Exception) -> None:
        del self._open[name]
        warnings.warn(f"{name} is left out from here on: {first_line(error)}", stacklevel=3)

    def _known(self) -> dict[str, str]:
        """The trackers' names for this training, of an earlier part of it."""
        try:
            found: Any = json.loads(self._ids.read_text())
        except (OSError, ValueError):
            return {}
        return {str(name): str(run) for name, run in found.items()} if isinstance(found, dict) else {}


def _logger(name: str, folder: Path, run: str | None) -> Logger:
    from lightning.pytorch import loggers

    # runs/NAME/train
    title = folder.resolve().parent.name
    if name == "mlflow":
        import mlflow

        # Asked, and not left to the logger: its own default is a store of files, which MLflow gives up.
        uri = mlflow.get_tracking_uri()
        return loggers.MLFlowLogger(PROJECT, run_name=title, run_id=run, tracking_uri=uri)
    return loggers.WandbLogger(title, save_dir=folder, project=PROJECT, id=run, resume="allow")
