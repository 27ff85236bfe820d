"""The plot of a comparison: how far each sample's logits are off, beside how far off they could be."""

from __future__ import annotations

from typing import Any

import numpy as np

from sesurgery.reports.plots.canvas import ACCENT, BAD, HALF, MUTED, Plot, draw, powers_of_ten
from sesurgery.reports.wording import percent, plural, small
from sesurgery.verification.parity import BatchParity, ParityReport

SHOWN = 1500


def parity(name: str, entry: BatchParity) -> Plot:
    """Every sample by the model's margin and the engine's largest logit error, with the line where answers can flip."""
    report = entry.report
    errors, margins = np.asarray(report.sample_errors), np.asarray(report.sample_margins)
    finite = np.isfinite(errors)
    positive = np.concatenate([errors[finite & (errors > 0)], margins[margins > 0], [1e-12]])
    floor = max(1e-9, float(positive[:-1].min()) / 2) if len(positive) > 1 else 1e-9
    chosen = _chosen(errors)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        across = np.maximum(margins[chosen], floor)
        upward = np.maximum(np.where(finite, errors, floor)[chosen], floor)
        flipped = np.isin(chosen, report.disagreeing)
        axes.plot(across[~flipped], upward[~flipped], "o", color=ACCENT, markersize=4, alpha=0.45, mew=0,
                  label="same answer")  # fmt: skip
        if flipped.any():
            axes.plot(across[flipped], upward[flipped], "X", color=BAD, markersize=8, mew=0, label="another answer")
        left, right = across.min() / 1.6, across.max() * 1.6
        top = max(upward.max(), right / 2) * 2
        line = np.array([left, right])
        axes.plot(line, line / 2, color=MUTED, linestyle="--", linewidth=1.2, label="half the margin")
        axes.fill_between(line, line / 2, top, color=BAD, alpha=0.07, linewidth=0)
        axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(min(upward.min(), left / 2) / 1.6, top))
        axes.set(xlabel="model's margin: first class over second", ylabel="largest logit error")
        powers_of_ten(axes.xaxis)
        powers_of_ten(axes.yaxis)
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.3, columnspacing=1.2)

    rest = f" {SHOWN:,} of {report.samples:,} samples are drawn, the worst among them." if len(errors) > SHOWN else ""
    return Plot(
        f"Batch {entry.batch}: {_finding(report, errors, margins)}",
        draw(f"{name}-parity", HALF, 320, paint),
        "One dot a sample, both axes logarithmic, in units of the logits. Below the dashed line the error is less than "
        f"half the model's margin and cannot change the answer; in the shaded area it can.{rest}",
    )


def _chosen(errors: Any) -> Any:
    """Indices of the samples to draw: all, or the worst ones and every n-th of the others."""
    if len(errors) <= SHOWN:
        return np.arange(len(errors))
    order = np.argsort(-errors, kind="stable")
    worst = order[: SHOWN // 10]
    others = order[SHOWN // 10 :][np.linspace(0, len(order) - len(worst) - 1, SHOWN - len(worst)).astype(int)]
    return np.concatenate([worst, others])


def _finding(report: ParityReport, errors: Any, margins: Any) -> str:
    if report.nonfinite_samples:
        return f"NaN or infinity in {plural(report.nonfinite_samples, 'sample')}"
    if report.disagreeing:
        return f"{percent(report.agreement)} of answers agree, {len(report.disagreeing)} of {report.samples:,} differ"
    if not errors.any():
        return "equal to the last bit"
    at_risk = int((errors >= margins / 2).sum())
    if at_risk:
        return f"all answers agree, {plural(at_risk, 'sample')} within reach of a flip"
    return f"all answers agree, largest error {small(report.max_abs)}"
