"""Pictures of committed studies for `studies.md`, from their `study.json`: `python docs/study_pictures.py [JSON...]`.

Each is one of the page's own plots, as an SVG in the page's colours, light or dark as the reader has it: accuracy by
cell, accuracy against the latency of the engines where they were timed, and learning curves where they are known.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from sesurgery.reports.pages import page, study
from sesurgery.reports.plots.canvas import Plot
from sesurgery.reports.plots.study import plots
from sesurgery.studies.answer import timed

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "studies"
NAMES = ("ink", "muted", "grid", "candidate", "baseline", "accent", "bad", "paper")


def pictures(found: dict[str, object]) -> dict[str, str]:
    """A study's plots, each an SVG of its own, by what follows `study_NAME` in the file's name."""
    answer = study.from_json(found)
    suffixes = ("", "_latency" if timed(answer.rows) else None, "_curves")
    wanted = {suffix: plot for suffix, plot in zip(suffixes, plots(answer), strict=False) if suffix is not None}
    return {suffix: _alone(plot, str(found["name"])) for suffix, plot in wanted.items()}


def _alone(plot: Plot, name: str) -> str:
    style = f"{_colours()} text {{ fill: var(--ink); font-family: sans-serif; }} svg {{ background: var(--paper); }}"
    opened = re.match(r'<svg viewBox="([^"]*)" aria-hidden="true">', plot.svg)
    if opened is None:
        raise ValueError("a plot is an SVG with a viewBox")
    width, height = opened[1].split()[2:]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{opened[1]}"'
    head += f' width="{width}" height="{height}" role="img">'
    return f"{head}<title>{name}: {plot.title}</title><style>{style}</style>{plot.svg[opened.end() :]}\n"


def _colours() -> str:
    """The page's colours for light and dark, from its style sheet."""
    sheet = (Path(page.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+);", part)) for part in sheet.split("prefers-color-scheme: dark")[:2]
    )
    both = (" ".join(f"--{name}: {colours[name]};" for name in NAMES) for colours in (light, dark))
    return "svg {{ {} }} @media (prefers-color-scheme: dark) {{ svg {{ {} }} }}".format(*both)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sorted(str(file) for file in RESULTS.glob("*.json"))):
        for suffix, drawn in pictures(json.loads(path.read_text(encoding="utf-8"))).items():
            target = DOCS / "pictures" / f"study_{path.stem}{suffix}.svg"
            target.write_text(drawn, encoding="utf-8")
            print(target)
