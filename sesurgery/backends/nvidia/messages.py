"""Messages of a builder: errors are collected, progress is passed on. Nothing may be raised into its threads."""

from __future__ import annotations

import functools
import re
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from sesurgery.backends.base import Progress
from sesurgery.backends.inputs.onnx_file import OnnxFile
from sesurgery.diagnostics import Diagnostic

MISSING_OPERATOR = "Plugin not found"
MOST_WARNINGS = 5
ANOTHER_LOGGER = "differs from one already registered"
"""Said where another program in this process had a logger first, which hears everything then."""
SHORTEST_NAME = 4
"""A node called `a` is found in any sentence."""
ADVICE = {
    "CUDA driver version is insufficient": "an engine that takes weights (refit, stripped) is built where a GPU is",
    "sm_vers_.size() == 1": "an engine that takes weights is built for one kind of GPU: -O 'capabilities=[\"SM86\"]'",
}
"""What TensorRT-RTX's words about its own insides mean where an engine is to take weights, as far as they were seen."""
LAYERS = "Layers:"
"""How the message begins that lists what the compiler made; only a detailed build has one."""


@dataclass(eq=False)
class Messages:
    """What the library said since this was made: `errors`, `warnings` and the compiled `layers`.

    A call that fails only returns None; the reason is here.
    """

    logger: Any
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)


def listen(trt: ModuleType) -> Messages:
    """Receive the library's messages for as long as the returned object is held."""
    logger = _logger(trt.ILogger)
    messages = Messages(logger)
    logger.add(messages)
    return messages


@functools.cache
def _logger(base: Any) -> Any:
    """The one ILogger of a library in this process, which tells all who listen.

    The library keeps using the logger that it saw first while any object made with it exists, so a build with a
    logger of its own would not hear why it failed. An IErrorRecorder written in Python would be the tidier way, but
    crashes the interpreter at exit.
    """

    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._listening: weakref.WeakSet[Messages] = weakref.WeakSet()
            # Reentrant: the garbage collector may end an engine while this thread holds the lock, and ending one logs.
            self._lock = threading.RLock()

        def add(self, messages: Messages) -> None:
            with self._lock:
                self._listening.add(messages)

        def log(self, severity: Any, message: str) -> None:
            # Called from threads, where an exception would end the process.
            with self._lock:
                listening = tuple(self._listening)
            for messages in listening:
                if severity in (base.ERROR, base.INTERNAL_ERROR):
                    messages.errors.append(message)
                elif ANOTHER_LOGGER in message:
                    continue
                elif severity == base.WARNING and len(messages.warnings) < MOST_WARNINGS:
                    messages.warnings.append(message)
                elif message.startswith(LAYERS):
                    messages.layers.append(message)

    return Logger()


def reporter(trt: ModuleType, progress: Progress | None) -> Any:
    """An IProgressMonitor that passes on to `progress`; what that raises cancels the build and is kept in `raised`.

    `cancel` makes the build end at its next step.
    """

    class Reporter(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.raised: BaseException | None = None
            self.cancelled = False
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self.raised is None and not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            # A phase may end before its last step was reported.
            self._tell(phase_name, self._steps.get(phase_name, 0))

        def cancel(self) -> None:
            self.cancelled = True

        def _tell(self, phase: str, done: int) -> None:
            with self._lock:
                if progress is not None and self.raised is None and not self.cancelled:
                    try:
                        progress(phase, done, self._steps.get(phase, 0))
                    except BaseException as error:
                        self.raised = error

    return Reporter()


def parser_mistakes(name: str, source: OnnxFile, errors: Sequence[Any], logged: Sequence[str]) -> list[Diagnostic]:
    """The parser's errors with the node they are about; what it logged where it lists none."""
    mistakes = []
    for error in errors:
        node, operator, code = error.node_name(), error.node_operator(), error.code().name
        # A description can be the mere source text of a failed check ("false"): the code says what kind it is.
        desc = " ".join(error.desc().split())
        words = f"{code.lower().replace('_', ' ')}: {desc}"
        scope = source.scope(node)
        where = f"node {node!r} ({operator}{f', in {scope}' if scope else ''})" if node else str(source.path)
        hint = None
        # An operator that it has, but not for this type or attribute, it tells of in words.
        if MISSING_OPERATOR in words or (code == "UNSUPPORTED_NODE" and "Assertion failed" not in desc):
            words, hint = (
                f"{name} has no operator {operator!r}",
                "replace it by operators that ONNX defines, then export",
            )
        mistakes.append(Diagnostic("SE604", f"{where}: {words}", hint=hint))
    if not mistakes:
        words = "; ".join(logged) or "the parser found no network in it"
        mistakes.append(Diagnostic("SE604", f"{name} cannot read {source.path}: {words}"))
    return mistakes


def advice(words: str) -> str | None:
    """Advice where building a refittable engine fails with an internal error of the builder."""
    return next((hint for said, hint in ADVICE.items() if said in words), None)


def located(words: str, source: OnnxFile) -> str:
    """A builder's words, and after them the module of each node that they name, where the file knows it."""
    named = {node.name for node in source.model.graph.node if len(node.name) >= SHORTEST_NAME}
    # Compiled layers are called `node_x_myl0_3`, fused ones `node_x + node_y`.
    found = dict.fromkeys(
        word for word in re.findall(r"[\w./:-]+", re.sub(r"_myl\d+_\d+", " ", words)) if word in named
    )
    scopes = {name: source.scope(name) for name in found}
    where = ", ".join(f"{name} is in {scope}" for name, scope in scopes.items() if scope)
    return f"{words} ({where})" if where else words
