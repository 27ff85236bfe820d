"""The symbol that stands for a value while a forward is traced: it answers what can be known of the value.

Type tests, lengths, iteration and whole numbers are answered from the sizes of the input, as the value itself would
answer them; what depends on the batch or on data is not answered, and raises.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import operator
import sys
import types
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from sesurgery.surgeons.fx.writes import Writable

if TYPE_CHECKING:
    from sesurgery.surgeons.fx.sizes import Sizes

_UNPACK = dis.opmap["UNPACK_SEQUENCE"]


class Symbol(Writable):
    """A proxy whose tracer has `sizes`, which know the value as far as it can be known."""

    def __getattr__(self, name: str) -> Any:
        if name in ("values", "items") and (keys := self._keys_of_dict()) is not None:
            value: Any = self
            found = [(key, operator.getitem(value, key)) for key in keys]
            return lambda: found if name == "items" else [item for _, item in found]
        return SymbolAttribute(self, name)

    def keys(self) -> Any:
        """The keys of a dictionary, which do not depend on data; of anything else what torch.fx makes of it."""
        found = self._keys_of_dict()
        return super().keys() if found is None else found

    def _keys_of_dict(self) -> list[Any] | None:
        kind = _sizes(self).kind(self.node)
        if kind is None or not issubclass(kind, dict):
            return None
        pair: Any = _sizes(self).pair(self.node)
        return list(pair[0])

    def __len__(self) -> int:
        length = _sizes(self).length(self.node)
        if length is None:
            raise fx.proxy.TraceError("the length of a value depends on the batch or on data")
        return length

    def __iter__(self) -> Iterator[Any]:
        value: Any = self
        frame = sys._getframe(1)
        if frame.f_code.co_code[frame.f_lasti] == _UNPACK:
            # `a, b = x` says itself how many there are.
            return (operator.getitem(value, index) for index in range(frame.f_code.co_code[frame.f_lasti + 1]))
        if (keys := self._keys_of_dict()) is not None:
            return iter(keys)
        return (operator.getitem(value, index) for index in range(len(self)))

    def __contains__(self, item: object) -> bool:
        pair = _sizes(self).pair(self.node)
        found = {item in value for value in pair or () if isinstance(value, dict | str | range)}
        if len(found) != 1:
            raise fx.proxy.TraceError("whether a value holds another depends on data")
        return found.pop()

    def __int__(self) -> int:
        return int(_number(self))

    def __index__(self) -> int:
        number = _number(self)
        if not isinstance(number, int):
            raise TypeError("not a whole number")
        return number

    def __float__(self) -> float:
        return float(_number(self))


class SymbolAttribute(Symbol, fx.proxy.Attribute):
    """An attribute of a value, in the graph only once it is read as a value of its own."""

    def __init__(self, root: fx.Proxy, name: str) -> None:
        fx.proxy.Attribute.__init__(self, root, name)

    node = fx.proxy.Attribute.node
    __call__ = fx.proxy.Attribute.__call__


def _sizes(symbol: fx.Proxy) -> Sizes:
    found: Sizes = symbol.tracer.sizes  # type: ignore[attr-defined]
    return found


def _number(symbol: fx.Proxy) -> bool | int | float:
    number = _sizes(symbol).number(symbol.node)
    if number is None:
        raise fx.proxy.TraceError("a number depends on the batch or on data")
    return number


class _Stand(type):
    """Makes a class that is called in a builtin's place and is that builtin to every test."""

    real: type

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.real)

    def __subclasscheck__(cls, value: type) -> bool:
        return issubclass(value, cls.real)

    def __eq__(cls, other: object) -> bool:
        return other is cls.real or cls is other

    def __hash__(cls) -> int:
        return hash(cls.real)


class _Int(metaclass=_Stand):
    """`int(x.shape[2])` stays the symbol that it is: another input has another size."""

    real = builtins.int

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and issubclass(builtins.type(args[0]), Symbol) and _sizes(args[0]).kind(args[0].node) is int:
            return args[0]
        return builtins.int(*args, **kwargs)


class _Type(metaclass=_Stand):
    """`type(x) is Tensor` is answered for the value, not for its symbol."""

    real = builtins.type

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and issubclass(builtins.type(args[0]), Symbol):
            return _sizes(args[0]).kind(args[0].node) or builtins.type(args[0])
        return builtins.type(*args, **kwargs)


def _isinstance(value: Any, kinds: Any) -> bool:
    """`isinstance` for the value that a symbol stands for."""
    if issubclass(builtins.type(value), Symbol) and (kind := _sizes(value).kind(value.node)) is not None:
        return issubclass(kind, kinds)
    return builtins.isinstance(value, kinds)


def _is_tensor(value: Any) -> bool:
    return _isinstance(value, torch.Tensor)


def _jit_isinstance(value: Any, kinds: Any) -> bool:
    simple = builtins.isinstance(kinds, builtins.type) and issubclass(builtins.type(value), Symbol)
    return _isinstance(value, kinds) if simple else _of_torch_jit(value, kinds)  # type: ignore[no-untyped-call]


_of_torch_jit = torch.jit.isinstance


@contextlib.contextmanager
def builtins_that_see_symbols(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While tracing, `int`, `type` and `isinstance` in the packages of these modules see values, not symbols.

    By their names in those files, and not by a symbol that says it is a tensor: torch's own C++ would believe it.
    Within another such context for all of these modules it costs nothing.
    """
    files = {builtins.type(module).__module__ for module in modules}
    if files <= _watched:
        yield
        return
    packages = {name.partition(".")[0] for name in files} - {"torch", "sesurgery"}
    whole = packages.union(name for name in files if name.startswith("sesurgery."))
    within = tuple(f"{name}." for name in packages)
    spaces = [
        vars(module)
        for name, module in list(sys.modules.items())
        if (name.startswith(within) or name in whole) and builtins.isinstance(module, types.ModuleType)
    ]
    own = {"int": _Int, "type": _Type, "isinstance": _isinstance}
    changed = [(space, name) for space in spaces for name in own if name not in space]
    added = files - _watched
    for space, name in changed:
        space[name] = own[name]
    torch.is_tensor, torch.jit.isinstance = _is_tensor, _jit_isinstance  # type: ignore[assignment]
    torch.autograd.Function.apply = classmethod(_apply)
    _watched.update(added)
    try:
        yield
    finally:
        _watched.difference_update(added)
        if not _watched:
            torch.autograd.Function.apply = _of_torch_apply
            torch.is_tensor, torch.jit.isinstance = _of_torch, _of_torch_jit
        for space, name in changed:
            space.pop(name, None)


_watched: set[str] = set()
"""The files of the modules that are being traced, in the outermost of several contexts."""
_of_torch = torch.is_tensor
_of_torch_apply = vars(torch.autograd.Function)["apply"]


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation with a gradient of its own must be called on values: run on symbols, it would lose it."""
    if any(issubclass(builtins.type(value), fx.Proxy) for value in (*args, *kwargs.values())):
        raise fx.proxy.TraceError(f"it calls {cls.__name__}, an operation with a gradient of its own")
    return _of_torch_apply.__func__(cls, *args, **kwargs)
