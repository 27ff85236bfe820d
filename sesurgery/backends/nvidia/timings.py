"""Where the time of a run goes, in trtexec's words: copies in, GPU compute, copies out, and the host's enqueue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sesurgery.tables import aligned

Floats = NDArray[np.float64]
COLUMNS = ("min", "mean", "median", "p90", "p95", "p99", "max")
LABELS = {"latency": "Latency", "enqueue": "Enqueue", "h2d": "H2D", "compute": "GPU compute", "d2h": "D2H"}
"""What the parts are called in text, by their names in trtexec's exported times."""
ENQUEUE_BOUND = 0.8
"""Median enqueue over median GPU compute above which the host holds the GPU up."""
UNSTABLE = 0.025
"""Coefficient of variation above which trtexec calls a measurement unstable."""


@dataclass(frozen=True)
class Timings:
    """Seconds of each run by part, in the order they ran; `wall` is from the first enqueue to the last result.

    `graph`: whether the runs were launches of a CUDA graph.
    """

    host_to_device: Floats
    compute: Floats
    device_to_host: Floats
    enqueue: Floats
    wall: float
    graph: bool

    @property
    def latency(self) -> Floats:
        """Host to device, compute and device to host together."""
        return self.host_to_device + self.compute + self.device_to_host

    @property
    def parts(self) -> dict[str, Floats]:
        """Seconds of each run by the names of trtexec's exported times (`h2dMs`, `computeMs`)."""
        return {
            "latency": self.latency,
            "enqueue": self.enqueue,
            "h2d": self.host_to_device,
            "compute": self.compute,
            "d2h": self.device_to_host,
        }

    @property
    def throughput(self) -> float:
        """Runs a second."""
        return len(self.compute) / self.wall

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the numbers doubtful."""
        found = []
        enqueue, compute = float(np.median(self.enqueue)), float(np.median(self.compute))
        if enqueue > ENQUEUE_BOUND * compute:
            took = f"{enqueue * 1e3:.3g} ms to start what the GPU does in {compute * 1e3:.3g} ms"
            text = f"enqueue-bound: the host takes {took}"
            found.append(text if self.graph else f"{text}; a CUDA graph would help")
        spread = float(np.std(self.compute) / np.mean(self.compute))
        if spread > UNSTABLE:
            found.append(f"unstable: GPU compute varies by {100 * spread:.1f} % (above {100 * UNSTABLE:.1f} %)")
        return tuple(found)

    def __str__(self) -> str:
        rows = [[LABELS[name], *_row(seconds * 1e3)] for name, seconds in self.parts.items()]
        lines = [
            *aligned([["ms", *COLUMNS], *rows]),
            f"{len(self.compute)} runs in {self.wall:.3g} s, {self.throughput:.1f} a second; "
            f"GPU compute {self.compute.sum():.3g} s; transfers on, CUDA graph {'on' if self.graph else 'off'}",
            *(f"warning: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)


def _row(values: Floats) -> list[str]:
    found = (values.min(), values.mean(), *np.percentile(values, (50, 90, 95, 99)), values.max())
    return [f"{value:.3f}" for value in found]
