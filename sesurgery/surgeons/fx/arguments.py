"""The parameters of a traced forward: which are inputs of the graph, and which are fixed by the traced call.

A tensor, and a number that has a default, is an input. A switch (`mask=None`, `return_dict=True`) is decided as the
call has it: a graph holds one of the two ways. Where the graph will stand in for the forward, it says so when another
call decides otherwise.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, fx
from torch.fx.node import map_aggregate

from sesurgery.surgeons.fx.inputs import Inputs, tensors
from sesurgery.surgeons.fx.sizes import Sizes

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def as_traced(value: object, decided: object, name: str) -> None:
    """Raise where a forward is called otherwise than the graph in its place was made for."""
    if value is not decided and (isinstance(value, Tensor) or isinstance(decided, Tensor) or value != decided):
        shown = "a tensor" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"blocks were inserted for {name}={decided!r}, found {shown}: insert them for this call")


def call_for(
    tracer: fx.Tracer, forward: Callable[..., Any], inputs: Inputs, sizes: Sizes, *, guarded: bool
) -> Callable[[], Any]:
    """The forward called on symbols, with their placeholders recorded."""
    signature = inspect.signature(forward)
    given = zip(inputs.two.bound(signature).items(), inputs.three.bound(signature).values(), strict=True)
    values = {name: (two, three) for (name, two), three in given}
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        argument = _argument(tracer, parameter, values.get(name), sizes, guarded)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional += list(argument)
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            keywords |= {key: argument[key] for key in values.get(name, ({}, {}))[0]}
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            keywords[name] = argument
        else:
            positional.append(argument)
    lists = [(value, list(value)) for value in (*positional, *keywords.values()) if type(value) is list]

    def call() -> Any:
        result = forward(*positional, **keywords)
        for value, before in lists:
            _write_back(tracer, value, before)
        return result

    return call


def _write_back(tracer: fx.Tracer, value: list[Any], before: list[Any]) -> None:
    """Record what a forward wrote into a list that it was given: its caller may read it there."""
    if len(value) != len(before):
        raise fx.proxy.TraceError("it changes the length of a list that it was given")
    for index, (new, old) in enumerate(zip(value, before, strict=True)):
        if new is not old:
            target = old.node.args[0]
            tracer.create_node("call_function", operator.setitem, (target, index, tracer.create_arg(new)), {})


def _argument(
    tracer: fx.Tracer, parameter: inspect.Parameter, values: tuple[Any, Any] | None, sizes: Sizes, guarded: bool
) -> Any:
    star = _STARS.get(parameter.kind) or ""
    default: Any = () if star == "*" else {} if star else parameter.default
    decided = values[0] if values else default
    optional = () if star or default is inspect.Parameter.empty else (default,)
    is_number = not isinstance(decided, bool) and isinstance(decided, int | float)
    if (values and _has_values(decided)) or (values is None and is_number):
        symbol = tracer.create_proxy("placeholder", f"{star}{parameter.name}", optional, {})
        sizes.give(symbol.node, *(values or (decided, decided)))
        # A list may be written to, which no symbol can be.
        return [*symbol] if isinstance(decided, list) and not star else symbol
    if guarded:
        node = tracer.create_node("placeholder", f"{star}{parameter.name}", optional, {})
        sizes.give(node, decided, decided)
        if _is_plain(decided):
            tracer.create_node("call_function", as_traced, (node, decided, parameter.name), {})
    return decided


def _has_values(value: object) -> bool:
    """Whether there is a tensor in it, or a node of the graph around."""
    found: list[object] = []

    def note(item: Any) -> Any:
        if isinstance(item, Tensor | fx.Node):
            found.append(item)
        return item

    map_aggregate(cast("Any", value), note)
    return bool(found) or any(True for _ in tensors(value))


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)
