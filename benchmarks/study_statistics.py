"""How often the table of a study is wrong and what it finds, over simulated scores: no network is trained.

    python benchmarks/study_statistics.py -o benchmarks/results/study_statistics.json

A score is an effect of the seed, which all cells share, and noise of one unit; a planted difference is in units of that
noise. Each line of the result has a random stream of its own, so none depends on which others are computed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from provenance import provenance

from sesurgery.studies.statistics import Scores, against

SEED = 0
Study = Callable[[np.random.Generator], bool]
"""Simulate one study; whether it called something, or what was planted, significant."""


@dataclass(frozen=True)
class Line:
    """Of how many simulated studies how many said so."""

    name: str
    cells: int
    seeds: int
    planted: float
    studies: int
    found: int

    @property
    def share(self) -> float:
        return self.found / self.studies


def scores(generator: np.random.Generator, differences: Sequence[float], seeds: int, common: float) -> list[Scores]:
    """Scores of a plain network and of cells that differ from it; a seed's own effect has the deviation `common`."""
    seed = generator.normal(0, common, seeds)
    return [
        {number: float(score) for number, score in enumerate(0.9 + d + seed + generator.normal(0, 1, seeds))}
        for d in (0.0, *differences)
    ]


def of_cells(planted: float, cells: int, seeds: int, common: float = 1.0) -> Study:
    """Whether a study finds the first cell, or with nothing planted any of them."""

    def study(generator: np.random.Generator) -> bool:
        (judged,) = against([scores(generator, [planted] + [0.0] * (cells - 1), seeds, common)])
        told = [each is not None and each.significant for each in judged]
        return told[0] if planted else any(told)

    return study


def of_engines(engines: int, seeds: int, *, once: bool) -> Study:
    """Whether a study of two equal trainings calls any engine's cell significant; `once`: it knows they share one."""

    def study(generator: np.random.Generator) -> bool:
        trained = scores(generator, [0.0], seeds, 1.0)
        groups = [
            [{seed: score + float(generator.normal(0, 0.1)) for seed, score in cell.items()} for cell in trained]
            for _ in range(engines)
        ]
        judged = against(groups, trainings=["one"] * engines if once else None)
        return any(each is not None and each.significant for (each,) in judged)

    return study


def seeds_asked(planted: float) -> int:
    """How many seeds a study says it takes, where it sees just this difference, and noise of just one unit."""
    # Of four pairs that differ by the planted plus or minus this, the deviation is that of two trainings' noise.
    swing = math.sqrt(1.5)
    ours = {seed: planted + (swing if seed % 2 else -swing) for seed in range(4)}
    ((judged,),) = against([[dict.fromkeys(range(4), 0.0), ours]])
    if judged is None or judged.more_seeds is None:
        raise ValueError(f"a difference of {planted} is told from four seeds, or from none")
    return judged.seeds + judged.more_seeds


def lines(scale: float) -> list[Line]:
    """Every line of the result; `scale` shortens all of them."""
    of_difference, of_training = 2 * math.sqrt(2), 2.0
    enough = seeds_asked(1.0)
    asked: list[tuple[str, int, int, float, int, Study]] = [
        ("nothing to find, four cells", 4, 5, 0.0, 3000, of_cells(0.0, 4, 5)),
        ("nothing to find, one cell", 1, 5, 0.0, 3000, of_cells(0.0, 1, 5)),
        ("two deviations of the difference, one cell", 1, 5, of_difference, 1500, of_cells(of_difference, 1, 5)),
        ("two deviations of the difference, four cells", 4, 5, of_difference, 1500, of_cells(of_difference, 4, 5)),
        ("two deviations of one training, one cell", 1, 5, of_training, 1500, of_cells(of_training, 1, 5, 0.0)),
        ("two deviations of one training, four cells", 4, 5, of_training, 1500, of_cells(of_training, 4, 5, 0.0)),
        ("one deviation of one training, at the seeds asked for", 1, enough, 1.0, 1500, of_cells(1.0, 1, enough)),
        ("three engines of one training", 1, 3, 0.0, 3000, of_engines(3, 3, once=True)),
        ("three engines, each counted as a training", 1, 3, 0.0, 3000, of_engines(3, 3, once=False)),
    ]
    made = []
    for number, (name, cells, seeds, planted, studies, study) in enumerate(asked):
        generator, count = np.random.default_rng((SEED, number)), max(1, round(scale * studies))
        made.append(Line(name, cells, seeds, planted, count, sum(study(generator) for _ in range(count))))
        print(f"{name}: {made[-1].share:.1%} of {count}", flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the studies, for a quick look")
    asked = parser.parse_args()
    origin = provenance()
    found = {
        **origin,
        "seed": SEED,
        "lines": [{**asdict(line), "share": line.share} for line in lines(asked.scale)],
    }
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
