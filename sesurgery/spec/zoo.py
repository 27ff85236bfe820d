"""Specs in the package: `zoo:seresnet50` for published networks, `demo:digits` for the demo."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from sesurgery.diagnostics import fail

FOLDERS = {kind: Path(__file__).parent.parent / kind for kind in ("zoo", "demo")}


def packaged(text: str) -> Path | None:
    """The file of `zoo:NAME` or `demo:NAME`, None for anything else; raises SE301 for a name that is none."""
    kind, colon, name = text.partition(":")
    return path_of(name, kind) if colon and kind in FOLDERS else None


def names(kind: str = "zoo") -> tuple[str, ...]:
    """All names, in order."""
    return tuple(sorted(path.stem for path in FOLDERS[kind].glob("*.yaml")))


def path_of(name: str, kind: str = "zoo") -> Path:
    """The spec's file; raises SE301 for a name that is none."""
    known = names(kind)
    if name not in known:
        near = get_close_matches(name, known, 3)
        others = "`sesurgery list zoo` shows them all" if kind == "zoo" else f"there are {' and '.join(known)}"
        hint = f"did you mean {', '.join(near)}?" if near else others
        what = "network" if kind == "zoo" else "spec"
        raise fail("SE301", f"there is no {what} {name!r} in the {kind}", hint)
    return FOLDERS[kind] / f"{name}.yaml"


def title(name: str) -> str:
    """The first line of comment: which network it is, and the papers."""
    lines = path_of(name).read_text().splitlines()
    return next(line[2:] for line in lines if line.startswith("# ") and not line.startswith("# yaml-language-server"))
