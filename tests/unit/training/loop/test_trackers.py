"""Experiment trackers: every epoch arrives, a resumed training goes on in the same run, a tracker ends no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import Train
from sesurgery.training.data.base import Data
from sesurgery.training.loop import FitRequest, fit

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_RUN_ID", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path / "tiny" / "train"


def test_mlflow_gets_every_epoch_in_one_run(data: Data, make_net: Net, make_recipe: Recipe, folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    net = make_net()
    fit(FitRequest(net, data, make_recipe(epochs=2, trackers=("mlflow",)), folder))
    result = fit(FitRequest(net, data, make_recipe(epochs=3, trackers=("mlflow",)), folder, resume=True))
    run = json.loads((folder / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient()
    kept = client.get_run(run)
    assert kept.data.tags["mlflow.runName"] == "tiny"
    assert kept.data.params["batch_size"] == "16"
    assert kept.info.status == "FINISHED"
    losses = sorted(client.get_metric_history(run, "held_out_loss"), key=lambda point: point.step)
    assert [point.value for point in losses] == [epoch.held_out_loss for epoch in result.epochs]


def test_wandb_keeps_its_run(data: Data, make_net: Net, make_recipe: Recipe, folder: Path) -> None:
    pytest.importorskip("wandb")
    net, ids = make_net(), []
    for epochs, resume in ((1, False), (2, True)):
        fit(FitRequest(net, data, make_recipe(epochs=epochs, trackers=("wandb",)), folder, resume=resume))
        ids.append(json.loads((folder / "trackers.json").read_text())["wandb"])
    assert ids[0] == ids[1]
    assert list((folder / "wandb").glob(f"offline-run-*-{ids[0]}/*.wandb"))


class Logger:
    """A logger that breaks at its second epoch."""

    version = "7"

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log_hyperparams(self, params: object) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.steps.append(step)
        if len(self.steps) == 2:
            raise ConnectionError("the server is gone")

    def finalize(self, status: str) -> None: ...


def test_one_that_breaks_is_left_out_and_training_goes_on(
    data: Data, make_net: Net, make_recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = Logger()
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", lambda *_, **__: logger)
    with pytest.warns(UserWarning, match="wandb is left out from here on: the server is gone"):
        result = fit(FitRequest(make_net(), data, make_recipe(trackers=("wandb",)), folder))
    assert len(result.epochs) == 3
    assert logger.steps == [6, 12]


def test_a_training_that_begins_anew_has_a_run_of_its_own_and_an_end_that_fails_loses_nothing(
    data: Data, make_net: Net, make_recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Logger):
        def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...

        def finalize(self, status: str) -> None:
            raise ConnectionError("the server is gone")

    asked: list[object] = []

    def opened(*_: object, **named: object) -> Logger:
        asked.append(named["id"])
        return Gone()

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", opened)
    for epochs, resume in ((1, False), (2, True), (1, False)):
        with pytest.warns(UserWarning, match="wandb is left out from here on: the server is gone"):
            result = fit(
                FitRequest(make_net(), data, make_recipe(epochs=epochs, trackers=("wandb",)), folder, resume=resume)
            )
        assert len(result.epochs) == epochs
    assert asked == [None, "7", None]


def test_one_that_is_not_installed_or_does_not_open_is_named_before_training(
    data: Data, make_net: Net, make_recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'wandb'")

    def closed(*_: object, **__: object) -> None:
        raise ValueError("no API key")

    for opened, says in ((missing, "needs the package wandb"), (closed, "does not open: no API key")):
        monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", opened)
        with pytest.raises(SesurgeryError, match=says):
            fit(FitRequest(make_net(), data, make_recipe(trackers=("wandb",)), folder))
