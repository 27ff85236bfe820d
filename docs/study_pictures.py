"""Pictures of committed studies for `studies.md`, from their `study.json`: `python docs/study_pictures.py [JSON...]`.

Each is the page's own plot of accuracy by cell, as an SVG in the page's colours, light or dark as the reader has it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from sesurgery.reports.pages import page, study
from sesurgery.reports.plots.study import plots

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "studies"
NAMES = ("ink", "muted", "grid", "candidate", "baseline", "accent", "bad", "paper")


def picture(found: dict[str, object]) -> str:
    """A study's accuracy by cell as a picture of its own."""
    plot = plots(study.from_json(found))[0]
    style = f"{_colours()} text {{ fill: var(--ink); font-family: sans-serif; }} svg {{ background: var(--paper); }}"
    opened = re.match(r'<svg viewBox="([^"]*)" aria-hidden="true">', plot.svg)
    if opened is None:
        raise ValueError("a plot is an SVG with a viewBox")
    width, height = opened[1].split()[2:]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{opened[1]}"'
    head += f' width="{width}" height="{height}" role="img">'
    return f"{head}<title>{found['name']}: {plot.title}</title><style>{style}</style>{plot.svg[opened.end() :]}\n"


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
        target = DOCS / "pictures" / f"study_{path.stem}.svg"
        target.write_text(picture(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
        print(target)
