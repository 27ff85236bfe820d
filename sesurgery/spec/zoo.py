"""The specs of published networks, which come with the package: `zoo:seresnet50` stands for one of them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from sesurgery.diagnostics import fail

FOLDER = Path(__file__).parent.parent / "zoo"
PREFIX = "zoo:"


def names() -> tuple[str, ...]:
    """All names, in order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def path_of(name: str) -> Path:
    """The spec's file; raises SE301 for a name that is none."""
    if name not in names():
        near = get_close_matches(name, names(), 3)
        hint = f"did you mean {', '.join(near)}?" if near else "`sesurgery list zoo` shows them all"
        raise fail("SE301", f"there is no network {name!r} in the zoo", hint)
    return FOLDER / f"{name}.yaml"


def title(name: str) -> str:
    """The first line of comment: which network it is, and the papers."""
    lines = path_of(name).read_text().splitlines()
    return next(line[2:] for line in lines if line.startswith("# ") and not line.startswith("# yaml-language-server"))
