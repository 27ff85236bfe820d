"""`with torch.no_grad():` and autocast inside a forward: a graph holds operations, so a region becomes two of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

_State = tuple[bool, bool, tuple[tuple[bool, torch.dtype], ...]]
_DEVICES = ("cpu", "cuda")


def region() -> _State:
    """The modes that operations run in: of gradients, of inference, of autocast."""
    autocasts = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _DEVICES)
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocasts


class Regions:
    """Compares the state in which each operation is recorded with the one in which tracing began."""

    def __init__(self, tracer: fx.Tracer) -> None:
        self._tracer = tracer
        self._around = self._now = region()
        self._ends: list[tuple[Any, fx.Node]] = []
        self._busy = False
        self.found = False

    def before_a_node(self) -> None:
        """Record what opens or closes a region before the operation that comes."""
        if self._busy or (state := region()) == self._now:
            return
        if state[1] != self._around[1]:
            raise fx.proxy.TraceError("a region of torch.inference_mode cannot be kept in a graph")
        self._busy, self._now, self.found = True, state, True
        try:
            while self._ends:
                function, begun = self._ends.pop()
                self._record(function, begun)
            self._open(state)
        finally:
            self._busy = False

    def _open(self, state: _State) -> None:
        if state[0] != self._around[0]:
            self._ends.append((torch._C._set_grad_enabled, self._record(torch.is_grad_enabled)))
            self._record(torch._C._set_grad_enabled, state[0])
        for kind, now, before in zip(_DEVICES, state[2], self._around[2], strict=True):
            if now != before:
                entered = self._record(torch.amp.autocast_mode._enter_autocast, kind, now[1], now[0], None)
                self._ends.append((torch.amp.autocast_mode._exit_autocast, entered))

    def _record(self, function: Any, *args: Any) -> fx.Node:
        return self._tracer.create_node("call_function", function, args, {})
