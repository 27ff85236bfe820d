"""The draws of a random or Bayesian search, each by its number in the study: known before the study is run.

Who draws, and which processes died meanwhile, changes none of them; what came of trials changes those of a Bayesian
search, once there are some.
"""

from __future__ import annotations

from typing import Literal

import optuna

from sesurgery.spec.study import Study
from sesurgery.studies.cells import Cell
from sesurgery.studies.parameters import BLOCKS, NETWORK, cell, suggest

START_UP = 5
"""Trials that have ended, early ones among them, before a Bayesian search looks at them; until then it is random."""
MOST_REPEATS = 50
"""Draws in a row that were there already: the axes hold no further cell."""


def sampler(search: Literal["grid", "random", "bayesian"], number: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for the draw of this number, which counts from 1."""
    if search == "bayesian":
        return optuna.samplers.TPESampler(seed=number, n_startup_trials=START_UP)
    return optuna.samplers.RandomSampler(seed=number)


def foreseen(asked: Study) -> tuple[Cell, ...]:
    """The cells that a search draws whatever comes of its trials, in their order: all of a random one's, and those that
    a Bayesian one begins with.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    found: dict[str, Cell] = {}
    number = repeats = 0
    while len(found) < asked.cells and repeats < MOST_REPEATS:
        networks = len(found) + len({each.group for each in found.values()})
        if asked.search == "bayesian" and networks * len(asked.seeds) >= START_UP:
            break
        number += 1
        study.sampler = sampler(asked.search, number)
        trial = study.ask()
        suggest(trial, BLOCKS, asked.axes)
        drawn = cell({NETWORK: BLOCKS, **trial.params}, asked.axes)
        repeats = repeats + 1 if drawn.key in found else 0
        found.setdefault(drawn.key, drawn)
    return tuple(found.values())
