"""What a builder says while it works: errors collected, progress passed on. Nothing may be raised into its threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from sesurgery.backends._source import Source
from sesurgery.backends.base import Progress
from sesurgery.diagnostics import Diagnostic

MISSING_OPERATOR = "Plugin not found"
MOST_WARNINGS = 5
LAYERS = "Layers:"
"""How the message begins that lists what the compiler made; only a detailed build has one."""


def collector(trt: ModuleType) -> Any:
    """An ILogger that keeps `errors`, `warnings` and the compiled `layers`: the build call itself only returns None.

    An IErrorRecorder written in Python would be the tidier way, but crashes the interpreter at exit.
    """

    class Collector(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.layers: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            # Called from threads, where an exception would end the process.
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING and len(self.warnings) < MOST_WARNINGS:
                self.warnings.append(message)
            elif message.startswith(LAYERS):
                self.layers.append(message)

    return Collector()


def reporter(trt: ModuleType, progress: Progress) -> Any:
    """An IProgressMonitor that passes on to `progress`; what that raises cancels the build and is kept in `raised`."""

    class Reporter(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.raised: BaseException | None = None
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self.raised is None

        def phase_finish(self, phase_name: str) -> None:
            # A phase may end before its last step was reported.
            self._tell(phase_name, self._steps.get(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            with self._lock:
                if self.raised is None:
                    try:
                        progress(phase, done, self._steps.get(phase, 0))
                    except BaseException as error:
                        self.raised = error

    return Reporter()


def parser_mistakes(name: str, source: Source, errors: Sequence[Any], logged: Sequence[str]) -> list[Diagnostic]:
    """The parser's errors with the node they are about; what it logged where it lists none."""
    mistakes = []
    for error in errors:
        node, operator, code = error.node_name(), error.node_operator(), error.code().name
        # A description can be the mere source text of a failed check ("false"): the code says what kind it is.
        words = f"{code.lower().replace('_', ' ')}: {' '.join(error.desc().split())}"
        scope = source.scope(node)
        where = f"node {node!r} ({operator}{f', in {scope}' if scope else ''})" if node else str(source.path)
        hint = None
        if code == "UNSUPPORTED_NODE" or MISSING_OPERATOR in words:
            words, hint = (
                f"{name} has no operator {operator!r}",
                "replace it by operators that ONNX defines, then export",
            )
        mistakes.append(Diagnostic("SE604", f"{where}: {words}", hint=hint))
    if not mistakes:
        words = "; ".join(logged) or "the parser found no network in it"
        mistakes.append(Diagnostic("SE604", f"{name} cannot read {source.path}: {words}"))
    return mistakes
