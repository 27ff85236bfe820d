"""A price list of blocks as printed text, Markdown and JSON."""

from __future__ import annotations

from sesurgery.reports.wording import change, count, fields, markdown, markdown_table, milliseconds, plural
from sesurgery.tables import aligned
from sesurgery.verification.cost import BlockPrice, BytesOf, Prices, Seconds, dear_first

HEADER = (
    *("block", "stage", "map", "time", "interval", "of the tax", "profile"),
    *("kernels", "bytes", "params", "MACs"),
)
FEW = 3
BYTES_OF: dict[BytesOf, str] = {
    "layers": "bytes are those that the layers of the compiled engine read and write",
    "nodes": "bytes are those that the nodes of the file read and write before fusion: the engine tells none",
}


def to_text(prices: Prices) -> str:
    """The table for a terminal, what it adds up to, and the dearest blocks."""
    head = f"what each block costs, {protocol(prices)}; times in ms"
    return "\n".join([head, *aligned([HEADER, *table(prices)]), *findings(prices)]) + "\n"


def to_markdown(prices: Prices) -> str:
    """The same as a Markdown table and sentences."""
    lines = [*markdown_table(HEADER, table(prices)), ""]
    return "\n".join([*lines, *(f"{markdown(finding)}.\n" for finding in findings(prices))]).rstrip() + "\n"


def to_json(prices: Prices) -> dict[str, object]:
    """The price list as plain data; times in seconds."""
    return fields(prices) | {
        "blocks": [_json(block) for block in prices.blocks],
        "sum": fields(prices.summed),
        "gap": fields(prices.gap),
        "agrees": prices.agrees,
        "tax": prices.tax,
    }


def protocol(prices: Prices) -> str:
    """How it was measured, in one line."""
    text = f"{prices.engine}, batch {prices.batch}, {plural(prices.threads, 'thread')}"
    # Of an earlier version's races nothing else is known.
    if not prices.pairs:
        return text
    return f"{text}, {plural(prices.pairs, 'pair')} of engines, each loaded afresh {prices.placements} times"


def table(prices: Prices) -> list[list[str]]:
    """One row of `HEADER` for each block, in the order of the network."""
    return [
        [
            block.key + (f" (1 of {block.alike})" if block.alike > 1 else ""),
            "-" if block.stage is None else str(block.stage),
            f"{block.channels} x {block.height} x {block.width}",
            milliseconds(block.time.value, prices.whole),
            _interval(block.time, prices.whole),
            change(block.time.value / prices.total.value) if prices.total.value > 0 else "-",
            "-" if block.profile is None else milliseconds(block.profile, prices.whole),
            "-" if block.kernels is None else str(block.kernels),
            "-" if block.bytes is None else count(block.bytes),
            count(block.params),
            count(block.macs),
        ]
        for block in prices.blocks
    ]


def findings(prices: Prices) -> list[str]:
    """The whole tax, whether the prices add up to it, what is dear, and what cannot be told."""
    whole, total, summed = prices.whole, prices.total, prices.summed
    once = " and of what is paid once" if prices.shared is not None else ""
    lines = [
        f"all blocks: {milliseconds(total.value, whole)} ms ({_interval(total, whole)}) of {milliseconds(whole)} ms, "
        f"a tax of {change(prices.tax)}",
        f"sum of the prices{once}: {milliseconds(summed.value, whole)} ms ({_interval(summed, whole)}), "
        + (
            "which agrees with it within the error of the two"
            if prices.agrees
            else f"which leaves {milliseconds(prices.gap.value, whole)} ms ({_interval(prices.gap, whole)}) over: "
            "blocks cost less or more beside one another, or the machine was not quiet"
        ),
    ]
    if (first := prices.shared) is not None and first.told:
        value = milliseconds(first.value, whole)
        lines.append(f"an engine pays once for having any block: {value} ms ({_interval(first, whole)})")
    dear = [block.key for block in dear_first(prices.blocks)[:FEW] if block.time.told and block.time.value > 0]
    if dear:
        lines.append(f"the dearest: {', '.join(dear)}")
    if vague := sum(not block.time.told for block in prices.blocks):
        reach = milliseconds(max(block.time.reach for block in prices.blocks), whole)
        lines.append(
            f"{plural(vague, 'block')} of {len(prices.blocks)} cannot be told from nothing: a price is known to "
            f"{reach} ms; a quieter machine or more time for the races would tell"
        )
    if prices.bytes_of is not None:
        lines.append(BYTES_OF[prices.bytes_of])
    if not prices.trained:
        lines.append("engines with untrained weights: latency does not depend on them")
    return lines


def labels(prices: Prices) -> dict[str, tuple[float, str]]:
    """Each block's price, and the words for it in a picture, by its key; of one that cannot be told, its bound."""
    return {block.key: _label(block.time, prices.whole) for block in prices.blocks}


def _label(time: Seconds, whole: float) -> tuple[float, str]:
    if time.told:
        return time.value, f"{milliseconds(time.value, whole)} ms"
    return 0.0, f"< {milliseconds(time.high, whole)} ms"


def _interval(time: Seconds, beside: float) -> str:
    return f"{milliseconds(time.low, beside)} to {milliseconds(time.high, beside)}"


def _json(block: BlockPrice) -> dict[str, object]:
    return {**fields(block), "time": fields(block.time)}
