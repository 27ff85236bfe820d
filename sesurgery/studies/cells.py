"""The cells of a study: the changes each makes to the spec, its plain network, and its spec."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from sesurgery.artifacts import digest_text
from sesurgery.diagnostics import Diagnostic, SpecError
from sesurgery.spec import Spec
from sesurgery.spec.changes import NoSuchPathError
from sesurgery.spec.study import Range, Study, engines_in

NO_BLOCKS: dict[str, JsonValue] = {"insert": "se", "at": "residual", "min_channels": 2**31, "expect": 0}
"""The rule of the plain network: a run like any other, without a site."""
DEPLOYED = ("engines", "export", "latency", "parity")
"""Sections that do not enter a training: cells that differ in these alone share one for each seed."""
Where = Mapping[str, JsonValue]


@dataclass(frozen=True)
class Cell:
    """One combination of values, by path of the spec; for a plain network, only of paths outside `surgery`."""

    where: Where
    plain: bool = False

    @property
    def key(self) -> str:
        """A key that is equal for equal cells."""
        return json.dumps([self.plain, dict(sorted(self.where.items()))], sort_keys=True)

    @property
    def group(self) -> str:
        """The key of the plain network it is compared with, which differs in surgery alone."""
        return plain_of(self).key

    @property
    def trained(self) -> Cell:
        """The cell whose training it shares: its values without those that do not enter one."""
        return Cell({path: value for path, value in self.where.items() if _section(path) not in DEPLOYED}, self.plain)

    @property
    def deployed(self) -> bool:
        """Whether its engine can differ where the training does not: its score is then the engine's."""
        return self.trained.key != self.key

    @property
    def engine(self) -> int:
        """Which of the spec's engines it is about; `spec.study` refuses axes over two."""
        return next((number for path in self.where for number in engines_in(path)), 0)

    def __str__(self) -> str:
        parts = [f"{short(path)}={shown(value)}" for path, value in self.where.items()]
        return ", ".join((["plain"] if self.plain else []) + parts) or "with blocks"


def plain_of(cell: Cell) -> Cell:
    """The cell without blocks and otherwise equal."""
    return Cell({path: value for path, value in cell.where.items() if _section(path) != "surgery"}, plain=True)


def grid(study: Study) -> tuple[Cell, ...]:
    """Every cell of a grid, each plain network before the cells that are compared with it."""
    values = {path: axis for path, axis in study.axes.items() if not isinstance(axis, Range)}
    made = (Cell(dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values()))
    return tuple(with_plain(made))


def with_plain(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Cells, each plain network before the cells that are compared with it."""
    seen = set()
    for cell in cells:
        for each in (plain_of(cell), cell):
            if each.key not in seen:
                seen.add(each.key)
                yield each


def trial_spec(spec: Spec, cell: Cell, seed: int) -> Spec:
    """The spec of a trial; raises SpecError if a value is not valid at its path."""
    surgery: dict[str, object] = {"surgery": [NO_BLOCKS]} if cell.plain else {}
    name = trial_name(cell, seed)
    return spec.with_({**cell.where, **surgery, "train.seed": seed, "study": None, "name": name})


def trial_name(cell: Cell, seed: int) -> str:
    """The name of a trial's run: readable, with a digest because the readable part may be shortened."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", str(cell)).strip("-.")[:48].strip("-.")
    return f"{words}-{digest_text(cell.key)[:6]}-seed{seed}"


def require_axes(spec: Spec) -> None:
    """Raise SpecError for every value that is not valid at its axis's path, placed at the axis in the file."""
    study = spec.study
    if study is None:
        return
    mistakes: list[Diagnostic] = []
    for path, axis in study.axes.items():
        values = (axis.low, axis.high) if isinstance(axis, Range) else axis
        for number, value in enumerate(values):
            try:
                spec.with_({path: value, "study": None})
            except SpecError as error:
                place = ("study", "axes", path) if isinstance(axis, Range) else ("study", "axes", path, number)
                first = error.diagnostics[0]
                text = f"axis {path!r}, value {shown(value)}: {first.message}"
                hint = _whole(spec, path, value) if first.code == "SE101" else None
                mistakes.append(Diagnostic(first.code, text, spec.span(*place), hint or first.hint))
                if isinstance(error, NoSuchPathError):
                    # No other value can be put there either.
                    break
    if mistakes:
        raise SpecError(mistakes)


def _whole(spec: Spec, path: str, value: JsonValue) -> str | None:
    """What to do about a value that is valid alone, and not with the keys beside it: `eca` beside `reduction: 4`."""
    whole, _, key = path.rpartition(".")
    try:
        if not whole:
            return None
        spec.with_({whole: {key: value}, "study": None})
    except SpecError:
        return None
    return (
        f"it does not go with the other keys of {whole!r}: make {whole!r} the axis, each value a mapping of all its "
        f"keys, as {{{key}: {shown(value)}}} is one"
    )


def short(path: str) -> str:
    """The last key of a path: the name of an axis in tables."""
    return re.sub(r"\[\d+\]$", "", path).rpartition(".")[2]


def shown(value: JsonValue) -> str:
    """A value in a table: text as it is, numbers that a search drew to four digits, the rest as JSON."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _section(path: str) -> str:
    return re.split(r"\W", path, maxsplit=1)[0]
