"""A cell as the parameters of one of Optuna's trials, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna
from pydantic import JsonValue

from sesurgery.spec.study import Range, Values
from sesurgery.studies.cells import Cell, plain_of

NETWORK, SEED = "network", "seed"
BLOCKS, PLAIN = "blocks", "plain"
Axes = Mapping[str, Values | Range]


def axes_of(network: str, axes: Axes) -> list[str]:
    """The axes that a plain network, or one with blocks, has a value of."""
    return [path for path in axes if network != PLAIN or plain_of(Cell({path: None})).where]


def is_whole(parameters: Mapping[str, Any], axes: Axes) -> bool:
    """Whether all parameters of a trial are there: the process that takes it writes them one by one."""
    return parameters.keys() >= {NETWORK, SEED} and parameters.keys() >= set(axes_of(parameters[NETWORK], axes))


def cell(parameters: Mapping[str, Any], axes: Axes) -> Cell:
    """The cell that a trial is about, by its parameters."""
    where = {path: _value(parameters[path], axis) for path, axis in axes.items() if path in parameters}
    return Cell(where, plain=parameters[NETWORK] == PLAIN)


def parameters_of(cell: Cell, seed: int) -> dict[str, Any]:
    """The parameters of a trial of a cell."""
    values = {path: _choice(value) for path, value in cell.where.items()}
    return {NETWORK: PLAIN if cell.plain else BLOCKS, SEED: seed, **values}


def suggest(trial: optuna.Trial, network: str, axes: Axes) -> None:
    """Have Optuna give a trial its values: those it waited with, and where there are none, what the sampler draws."""
    for path in axes_of(network, axes):
        axis = axes[path]
        if not isinstance(axis, Range):
            trial.suggest_categorical(path, [_choice(value) for value in axis])
        elif isinstance(axis.low, int) and isinstance(axis.high, int):
            trial.suggest_int(path, axis.low, axis.high, log=axis.log)
        else:
            trial.suggest_float(path, axis.low, axis.high, log=axis.log)


def _choice(value: JsonValue) -> Any:
    """A value as Optuna keeps it: a list or a mapping as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _value(kept: Any, axis: Values | Range) -> JsonValue:
    return kept if isinstance(axis, Range) else next(value for value in axis if _choice(value) == kept)
