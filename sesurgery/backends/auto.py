"""No builder of its own: `auto` stands for the backend that is fastest here, found by building and racing them.

It is a backend so that a spec names it as it names any other. `sesurgery.pipeline.auto` makes the choice: it takes a
trained model to compare with and a race, which lie above backends. The engine that comes out is the winner's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.backends.base import Backend, BuildOptions, BuildReport, Capability, Progress, Runner
from sesurgery.diagnostics import fail

AUTO = "auto"
"""Its name in specs and on the command line."""


@dataclass(frozen=True)
class Auto(Backend):
    """Builds with every backend that can run here, and keeps the fastest engine that keeps its parity.

    `among` names the backends to try; left out, all of them.
    """

    suffix = ".auto"
    precisions = ("fp32", "fp16", "bf16", "int8")

    among: tuple[str, ...] | None = None

    def probe(self) -> Capability:
        return Capability("", builds=None, runs=None)

    def build(self, onnx: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildReport:
        raise fail("SE603", "'auto' is a choice among backends and builds nothing itself", "name a backend")

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        raise fail("SE603", "'auto' is a choice among backends and runs nothing itself", "name a backend")
