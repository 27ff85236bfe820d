"""What the code of an author's forward reads, told without running it."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType

_FUSES = ("fuse", "fuse_convs", "reparameterize", "switch_to_deploy")
_WALKS = frozenset({"_modules", "children", "named_children", "modules", "named_modules"})


def walks(kind: type) -> bool:
    """Whether a module's forward, or a method that it calls, looks at all parts, as `for part in self.children()`."""
    return not _WALKS.isdisjoint(names_read(kind))


def fusing_methods(kind: type) -> list[str]:
    """The methods that make one operation of a module's own parts, as re-parameterisable networks have them.

    A method that walks through all parts is none: it lets each part fuse itself (timm's `RepViT.fuse`).
    """
    methods = {name: getattr(kind, name, None) for name in _FUSES}
    return [name for name, run in methods.items() if inspect.isfunction(run) and _WALKS.isdisjoint(_method_names(run))]


def _method_names(run: FunctionType) -> set[str]:
    return _names(inspect.unwrap(run).__code__)


def names_read(kind: type) -> set[str]:
    """The names of attributes, and the texts, in a module class's forward and in the methods that it calls.

    Methods of torch's own classes are left out: they walk through parts that they were given.
    """
    own = [base for base in kind.__mro__ if not base.__module__.startswith("torch.nn.modules.")]
    methods = {name: value for base in reversed(own) for name, value in vars(base).items() if inspect.isfunction(value)}
    found, pending = set[str](), ["forward"]
    while pending:
        if (method := methods.pop(pending.pop(), None)) is not None:
            names = _names(method.__code__)
            found |= names
            pending += names
    return found


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    texts = (constant for constant in code.co_consts if isinstance(constant, str))
    return {*code.co_names, *texts}.union(*map(_names, inner))
