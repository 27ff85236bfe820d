"""Names that a rule reads from a file: `at: {placement: module, file: layers.txt}`, one per line.

They are read with the spec and become part of it, so a run does not need the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sesurgery.diagnostics import Diagnostic, SpecError
from sesurgery.spec.source import SpecText


def with_names(data: dict[str, Any], source: SpecText | None) -> dict[str, Any]:
    """The spec's data with `names:` in the place of every `file:` of a placement; raises SpecError."""
    rules = data.get("surgery")
    if not isinstance(rules, list):
        return data
    folder = Path(source.file).parent if source else Path()
    found = [_expanded(rule, folder, source, index) for index, rule in enumerate(rules)]
    return data if found == rules else {**data, "surgery": found}


def _expanded(rule: Any, folder: Path, source: SpecText | None, index: int) -> Any:
    at = rule.get("at") if isinstance(rule, Mapping) else None
    if not isinstance(at, Mapping) or at.get("placement") != "module" or not isinstance(at.get("file"), str):
        return rule
    span = source.span(("surgery", index, "at", "file")) if source else None
    path = folder / at["file"]
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        text = f"the file of names {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError(
            [Diagnostic("SE001", text, span, "it is a text file beside the spec, a name a line")]
        ) from error
    if not (names := [line for line in lines if line]):
        text = f"the file of names {path} holds none"
        raise SpecError(
            [Diagnostic("SE104", text, span, "write the path of a module on each line; # begins a comment")]
        )
    given = at.get("names", [])
    rest = {key: value for key, value in at.items() if key != "file"}
    return {**rule, "at": {**rest, "names": [*([given] if isinstance(given, str) else given), *names]}}
