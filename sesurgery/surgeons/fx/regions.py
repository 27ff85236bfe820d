"""`with torch.no_grad():` and autocast inside a forward: a graph holds operations, so a region becomes two of them.

What `no_grad` does is seen in the state that operations are recorded in. `autocast(enabled=False)` changes nothing
there while a network is traced, only where it is trained in half precision: so entering and leaving are recorded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx
from torch.amp import autocast_mode

from sesurgery.surgeons.fx import draws

_State = tuple[bool, bool, tuple[tuple[bool, torch.dtype], ...]]
_DEVICES = ("cpu", "cuda")


def region() -> _State:
    """The modes that operations run in: of gradients, of inference, of autocast."""
    autocasts = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _DEVICES)
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocasts


def restore(state: _State) -> None:
    """Set the modes of gradients and of autocast."""
    torch._C._set_grad_enabled(state[0])
    for kind, (enabled, dtype) in zip(_DEVICES, state[2], strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


class Regions:
    """Compares the state in which each operation is recorded with the one in which tracing began."""

    def __init__(self, tracer: fx.Tracer) -> None:
        self._tracer = tracer
        self._around = self._now = region()
        self._end: fx.Node | None = None
        self._busy = False

    def before_a_node(self) -> None:
        """Record what opens or closes a region without gradients before the operation that comes."""
        if self._busy or (state := region()) == self._now:
            return
        if state[1] != self._around[1]:
            raise fx.proxy.TraceError("a region of torch.inference_mode cannot be kept in a graph")
        if state[2] != self._now[2]:
            raise fx.proxy.TraceError("a switch of autocast without `with torch.autocast` cannot be kept in a graph")
        self._busy, self._now = True, state
        try:
            if self._end is not None:
                self._record(torch._C._set_grad_enabled, self._end)
                self._end = None
            if state[0] != self._around[0]:
                self._end = self._record(torch.is_grad_enabled)
                self._record(torch._C._set_grad_enabled, state[0])
        finally:
            self._busy = False

    def autocast(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        """Record that a region of autocast is entered or left."""
        self.before_a_node()
        return self._record(function, *args)

    def autocast_changed(self) -> None:
        """The state has changed by what was recorded."""
        self._now = (*self._now[:2], region()[2])

    def _record(self, function: Any, *args: Any) -> fx.Node:
        return self._tracer.create_node("call_function", function, args, {})


@contextlib.contextmanager
def autocast_recorded(now: Callable[[], Any]) -> Iterator[None]:
    """Within it the tracer that `now` gives records the regions of autocast that a forward enters."""
    kind: Any = autocast_mode.autocast
    before = {name: vars(kind)[name] for name in ("__init__", "__enter__", "__exit__")}

    def regions() -> Regions | None:
        tracer = now()
        found: Regions | None = None if tracer is None or draws.are_paused() else tracer.regions
        return found

    @functools.wraps(before["__init__"])
    def initialise(self: Any, device_type: Any, *args: Any, **kwargs: Any) -> None:
        if regions() is not None:
            self.asked = (device_type, args, kwargs)
            if issubclass(type(device_type), fx.Proxy):
                # `with torch.autocast(x.device.type)`: the graph asks for it where it runs.
                pair = device_type.tracer.sizes.pair(device_type.node)
                device_type = pair[0] if pair else None
        before["__init__"](self, device_type, *args, **kwargs)

    @functools.wraps(before["__enter__"])
    def enter(self: Any) -> Any:
        if (found := regions()) is None:
            return before["__enter__"](self)
        # One that decorates a method was made before.
        made: tuple[Any, tuple[Any, ...], dict[str, Any]] = (
            self.device,
            (self.fast_dtype, self._enabled, self._cache_enabled),
            {},
        )
        asked = _in_order(*self.__dict__.get("asked", made))
        self.entered = found.autocast(autocast_mode._enter_autocast, *asked)
        result = before["__enter__"](self)
        found.autocast_changed()
        return result

    @functools.wraps(before["__exit__"])
    def leave(self: Any, *error: Any) -> Any:
        entered = self.__dict__.pop("entered", None)
        if entered is None or (found := regions()) is None:
            return before["__exit__"](self, *error)
        if error[0] is None:
            found.autocast(autocast_mode._exit_autocast, entered)
        result = before["__exit__"](self, *error)
        found.autocast_changed()
        return result

    try:
        for name, method in (("__init__", initialise), ("__enter__", enter), ("__exit__", leave)):
            setattr(kind, name, method)
        yield
    finally:
        for name, method in before.items():
            setattr(kind, name, method)


def _in_order(device_type: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What autocast was made with, by place: dtype, enabled, cache_enabled."""
    given = dict(zip(("dtype", "enabled", "cache_enabled"), (None, True, None), strict=True))
    given |= dict(zip(given, args, strict=False)) | kwargs
    device = device_type.node if issubclass(type(device_type), fx.Proxy) else device_type
    return device, given["dtype"], given["enabled"], given["cache_enabled"]
