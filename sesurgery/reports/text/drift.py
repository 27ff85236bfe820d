"""How an engine's error grows along the network, and what was tried to repair it."""

from __future__ import annotations

from sesurgery.reports.model import EngineSection
from sesurgery.reports.wording import markdown, markdown_table, small
from sesurgery.tables import aligned
from sesurgery.verification.drift import Drift, Repair

HEADER = ("place", "module", "error", "model reaches", "")
MARK = "<- first over tolerance"


def to_text(engine: EngineSection) -> list[str]:
    """The table of an engine's drift for a terminal; nothing if it was not measured."""
    if engine.drift is None:
        return []
    how = f" ({engine.drift.how})" if engine.drift.how else ""
    lines = [
        f"drift of {engine.name} along the network{how}:",
        *aligned([HEADER, *table(engine.drift)], left=(0, 1, 4)),
    ]
    return lines if engine.drift.first is not None or engine.repairs else [*lines, *findings(engine)]


def to_markdown(drift: Drift) -> str:
    """The same table in Markdown, with the tolerance."""
    how = f" ({drift.how})" if drift.how else ""
    sentence = f"The error at every block and at the end of every stage{how}; {drift.tolerance:g} is tolerated."
    return "\n".join([markdown(sentence), "", *markdown_table(HEADER, table(drift))])


def table(drift: Drift) -> list[list[str]]:
    """One row of `HEADER` for each place."""
    return [
        [
            each.name,
            each.scope,
            f"not finite in {each.nonfinite}" if each.nonfinite else small(each.error),
            small(each.largest),
            MARK if each is drift.first else "",
        ]
        for each in drift.errors
    ]


def findings(engine: EngineSection) -> list[str]:
    """Where the engine leaves the model, and what each repair came to."""
    drift = engine.drift
    if drift is None:
        return []
    first, before = drift.first, drift.before
    if first is None:
        lines = [f"no place is over {drift.tolerance:g}, which {engine.precision} explains"]
    else:
        since = f", after {before.name}" if before is not None else ""
        site = f"; the first block there: {drift.first_site}" if drift.first_site not in (None, first.site) else ""
        lines = [f"first over {drift.tolerance:g}: {first.name}{since}{site}"]
    return lines + [_repair(each) for each in engine.repairs]


def _repair(tried: Repair) -> str:
    if tried.failure is not None:
        return f"tried {tried.what}: {tried.failure}"
    return f"repaired by {tried.what}; in the spec: {tried}"
