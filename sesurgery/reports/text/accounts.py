"""What a network costs module by module before and after a plan, as a table and as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.accounting import CONVENTIONS, Account, Row
from sesurgery.tables import aligned

_FIGURES = ("params", "macs", "activations")


@dataclass(frozen=True)
class SiteCost:
    """What the block of one site costs; `module` is its path in the changed network."""

    key: str
    module: str
    row: Row


@dataclass(frozen=True)
class Accounts:
    """A network's account, cut to `depth` names of each path; with a plan also that of the changed network.

    `total` and `total_after` are those of the whole networks.
    """

    before: Account
    after: Account | None = None
    sites: tuple[SiteCost, ...] = ()

    @property
    def lines(self) -> tuple[tuple[str, Row | None, Row | None], ...]:
        """Every path, in the changed network's order, with its row before and after; None if there is none."""
        old = {row.path: row for row in self.before.rows}
        new = {row.path: row for row in self.after.rows} if self.after else old
        order = [*new]
        # What was taken out stands behind what stood before it.
        for at, path in enumerate(old):
            if path not in new:
                order.insert(order.index([*old][at - 1]) + 1 if at else 0, path)
        return tuple((path, old.get(path), new.get(path)) for path in order)


def to_json(accounts: Accounts) -> dict[str, object]:
    """Plain data: rows with what is before and after (null where there is nothing), sites, totals, the convention."""
    changed = accounts.after is not None
    return {
        "convention": accounts.before.convention,
        "counts": CONVENTIONS[accounts.before.convention],
        "rows": [
            {"path": path, "added": changed and old is None, "before": _data(old), "after": _data(new)}
            if changed
            else {"path": path, **(_data(old) or {})}
            for path, old, new in accounts.lines
        ],
        "sites": [{"key": site.key, "module": site.module, **(_data(site.row) or {})} for site in accounts.sites],
        "total": {"before": _data(accounts.before.total), "after": _data(accounts.after.total)}
        if accounts.after
        else _data(accounts.before.total),
    }


def to_text(accounts: Accounts) -> str:
    """An aligned table; with a plan what was added stands beside each figure, and rows of blocks begin with a plus."""
    unit = "MACs" if accounts.before.convention == "torch" else "flops (fvcore)"
    if accounts.after is None:
        return accounts.before.table()
    heads = [cell for name in ("parameters", unit, "activations") for cell in (name, "added")]
    lines: list[tuple[str, ...]] = [("", "module", *heads)]
    for path, old, new in accounts.lines:
        mark = "+" if old is None else "-" if new is None else ""
        lines.append((mark, path or "(itself)", *_cells(old, new)))
    lines.append(("", "total", *_cells(accounts.before.total, accounts.after.total)))
    text = _aligned(lines)
    if accounts.sites:
        rows: list[tuple[str, ...]] = [("", "site", "parameters", unit, "activations")]
        rows += [("+", site.key, *(f"{getattr(site.row, name):,}" for name in _FIGURES)) for site in accounts.sites]
        total = [sum(getattr(site.row, name) for site in accounts.sites) for name in _FIGURES]
        text += "\n\n" + _aligned([*rows, ("", "all sites", *(f"{number:,}" for number in total))])
    return text


def _cells(old: Row | None, new: Row | None) -> Iterator[str]:
    """Each figure after the plan, and its difference from the one before."""
    for name in _FIGURES:
        was, now = getattr(old, name, 0), getattr(new, name, 0)
        yield f"{now:,}"
        yield f"{now - was:+,}" if now != was else ""


def _aligned(lines: list[tuple[str, ...]]) -> str:
    marks = [mark or " " for mark, *_ in lines]
    cells = aligned([rest for _, *rest in lines])
    return "\n".join(f"{mark} {line}".rstrip() for mark, line in zip(marks, cells, strict=True))


def _data(row: Row | None) -> dict[str, int] | None:
    return None if row is None else {name: getattr(row, name) for name in _FIGURES}
