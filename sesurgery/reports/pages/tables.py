"""What the page and the Markdown of a run both show of a network and of an engine."""

from __future__ import annotations

from sesurgery.reports.model import EngineSection, NetworkSection, TrainingSection
from sesurgery.reports.wording import count, growth, percent

EPOCHS = ("epoch", "training loss", "held-out top-1", "learning rate")


def network_totals(network: NetworkSection) -> list[list[str]]:
    """Parameters and MACs before, after, and what was added."""
    return [
        [name, count(before), count(after), f"+{count(after - before)}", growth(before, after)]
        for name, before, after in (
            ("parameters", network.params_before, network.params_after),
            ("MACs", network.macs_before, network.macs_after),
        )
    ]


def convolution_counts(engine: EngineSection) -> str:
    """The precisions found in the built network: `53 fp16, 1 fp32`."""
    return ", ".join(f"{number} {name}" for name, number in engine.convolutions.items()) or "not known"


def kept_fp32(engine: EngineSection) -> list[tuple[str, list[str]]]:
    """Why nodes stayed fp32, and which: the most frequent reason first."""
    nodes: dict[str, list[str]] = {}
    for reason in engine.kept_fp32:
        # Not by its kind: a page has room to say which squeeze and which value a reason is about.
        nodes.setdefault(reason.text, []).append(reason.where)
    return sorted(nodes.items(), key=lambda entry: -len(entry[1]))


def epochs_table(training: TrainingSection | None) -> list[list[str]]:
    """A row of `EPOCHS` for each epoch."""
    return [
        [str(row.epoch), f"{row.train_loss:.4f}", percent(row.top1), f"{row.learning_rate:.3g}"]
        for row in (training.epochs if training else ())
    ]
