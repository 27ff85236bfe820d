"""Which module's forward has to become a graph for a site, and which of its parts it has to be seen through.

A block stands between an operation that makes a value and those that read it. The smallest module whose forward
contains that place is changed; everything else stays the user's own code, hooks and all. Modules that lie between the
owner and the place are open (their operations become the owner's), all others are called as they are.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import fx, nn

from sesurgery.diagnostics import fail
from sesurgery.planner import Removal, Site
from sesurgery.surgeons.fx.changed import read_by_forward
from sesurgery.surgeons.fx.traced import Call
from sesurgery.surgeons.fx.view import Frame, readings

Chain = tuple[str, ...]


@dataclass(eq=False)
class Item:
    """A site or a removal: the value it stands on, the nodes that must be seen, and the module it must lie in."""

    what: Site | Removal
    value: fx.Node
    seen: tuple[fx.Node, ...]
    whole: bool
    """Whether every reading of the value is rerouted, by whatever way it is reached."""
    scope: str
    """The path of the module that it must lie in, within the frame."""
    asked: bool = False
    """Whether the module at `scope` must run a graph: its own forward may call what has the block's name."""


@dataclass(eq=False)
class Owner:
    """A module by the chain of calls that leads to it, and the calls below it that are open."""

    base: Chain
    items: list[Item]
    open: set[str] = field(default_factory=set)

    def within(self, chain: Chain) -> bool:
        return chain[: len(self.base)] == self.base


class Calls:
    """The calls of one frame, and where each node stands among them."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.by_key = {call.key: call for call in frame.traced.calls}
        self.times = Counter(call.path for call in frame.traced.calls)
        self._chains = {node: _chain(node) for node in frame.traced.graph.nodes}
        self._paths = {key: path for node in self._chains for key, (path, *_) in _stack(node).items()}
        self._below: dict[Chain, list[fx.Node]] = {}
        for node, chain in self._chains.items():
            for depth in range(len(chain) + 1):
                self._below.setdefault(chain[:depth], []).append(node)

    def chain(self, node: fx.Node) -> Chain:
        """The keys of the calls in whose forward the node was made, outermost first."""
        return self._chains[node]

    def below(self, base: Chain) -> list[fx.Node]:
        """The nodes made in the last call of a chain, or in a call within it, in their order in the graph."""
        return self._below.get(base, [])

    def path(self, chain: Chain) -> str:
        """The module that the last call of a chain is of."""
        return self.path_of(chain[-1]) if chain else ""

    def path_of(self, key: str) -> str:
        """The module that a call is of, by the call's key: torch.fx numbers the calls of one module after the first."""
        return self._paths[key]

    def resolve(self, owner: Owner, item: Item) -> fx.Node | Call | str | None:
        """How the owner knows the item's value: as a node, as what a call gives, or as its own argument's name."""
        chain = self.chain(item.value)
        if not owner.within(chain):
            return self._argument(owner, item.value)
        for depth in range(len(owner.base), len(chain)):
            if chain[depth] not in owner.open:
                call = self.by_key[chain[depth]]
                inside = any(call.key in self.chain(reader) for reader in item.seen if reader is not item.value)
                if item.whole:
                    inside = any(call.key in self.chain(reader) for reader in item.value.users)
                return call if call.result is item.value and not inside else None
        return item.value

    def _argument(self, owner: Owner, value: fx.Node) -> str | None:
        if not owner.base:
            return None
        call = self.by_key[owner.base[-1]]
        module = self.frame.traced.root.get_submodule(call.path)
        names = [name for name, given in _bound(module, call) if given is value]
        return names[0] if len(names) == 1 else None


def _chain(node: fx.Node) -> Chain:
    keys = tuple(_stack(node))
    return keys[:-1] if node.op == "call_module" else keys


def _stack(node: fx.Node) -> Mapping[str, tuple[str, object]]:
    """The calls around a node as torch.fx records them, outermost first: each call's key, with its module's path."""
    stack: Mapping[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    return stack


def _bound(module: nn.Module, call: Call) -> Iterator[tuple[str, object]]:
    yield from inspect.signature(module.forward).bind(*call.args, **call.kwargs).arguments.items()


def find(
    frame: Frame, sites: Iterable[Site], removals: Iterable[Removal], avoided: frozenset[str] = frozenset()
) -> list[Owner]:
    """The owners of all sites and removals of one frame; no two of them see one operation.

    A module of `avoided` owns nothing that a smaller one can own.
    """
    calls = Calls(frame)
    nodes = {frame.name(node): node for node in frame.traced.graph.nodes}
    items = [*_removals(calls, nodes, removals), *_sites(calls, nodes, sites, list(removals))]
    owners = [_fitted(calls, Owner(_smallest(calls, item, avoided), [item])) for item in items]
    while (pair := _overlap(owners)) is not None:
        outer, inner = pair
        owners = [owner for owner in owners if owner not in pair]
        joined = Owner(outer.base, [*outer.items, *inner.items], outer.open | inner.open)
        joined.open |= set(inner.base[len(outer.base) :])
        owners.append(_fitted(calls, joined))
    for owner in owners:
        _no_hooks(calls, owner)
    return owners


def _overlap(owners: list[Owner]) -> tuple[Owner, Owner] | None:
    """The first owner that sees an operation of another one, and the first such other."""
    by_base: dict[Chain, list[int]] = {}
    for number, owner in enumerate(owners):
        by_base.setdefault(owner.base, []).append(number)
    pairs = (
        (outer, inner)
        for inner, owner in enumerate(owners)
        for depth in range(len(owner.base) + 1)
        for outer in by_base.get(owner.base[:depth], ())
        if outer != inner and all(key in owners[outer].open for key in owner.base[depth:])
    )
    first = min(pairs, default=None)
    return None if first is None else (owners[first[0]], owners[first[1]])


def _smallest(calls: Calls, item: Item, avoided: frozenset[str]) -> Chain:
    """The chain of calls that may own the item: the outermost that need not be opened, else the deepest."""
    chain = calls.chain(item.value)
    if item.whole:
        for depth, key in enumerate(chain):
            call = calls.by_key[key]
            if calls.frame.absolute(calls.path(chain[:depth])) in avoided:
                continue
            if item.asked and calls.path(chain[:depth]) != item.scope:
                continue
            if call.result is item.value and not any(key in calls.chain(reader) for reader in item.value.users):
                return chain[:depth]
        return chain
    common = _common([calls.chain(node) for node in item.seen] or [chain])
    for depth in range(len(common), 0, -1):
        trial = Owner(common[:depth], [item])
        if not trial.within(chain) and calls.resolve(trial, item) is not None:
            return trial.base
    return _common([common, chain]) if item.value.op != "placeholder" else ()


def _common(chains: list[Chain]) -> Chain:
    first, *others = chains
    length = 0
    while length < len(first) and all(len(other) > length and other[length] == first[length] for other in others):
        length += 1
    return first[:length]


def _fitted(calls: Calls, owner: Owner) -> Owner:
    """The owner made as large and as open as its items need."""
    while not _fits(calls, owner):
        if not owner.base:
            raise AssertionError("the network's own forward sees every operation")
        owner.open.add(owner.base[-1])
        owner.base = owner.base[:-1]
    return owner


def _fits(calls: Calls, owner: Owner) -> bool:
    path = calls.path(owner.base)
    if owner.base and calls.times[path] != 1:
        return False
    for item in owner.items:
        if path and not f"{calls.frame.absolute(item.scope)}.".startswith(f"{calls.frame.absolute(path)}."):
            return False
        for node in item.seen:
            chain = calls.chain(node)
            if node.op != "output" and not owner.within(chain):
                return False
            owner.open |= set(chain[len(owner.base) :])
    for item in owner.items:
        if calls.resolve(owner, item) is None:
            chain = calls.chain(item.value)
            if not owner.within(chain) or item.value.op == "placeholder":
                return not owner.base
            owner.open |= set(chain[len(owner.base) :])
    return True


def _sites(calls: Calls, nodes: dict[str, fx.Node], sites: Iterable[Site], removals: list[Removal]) -> Iterator[Item]:
    involved = {nodes[name] for gone in removals for name in (gone.output, gone.value) if name in nodes}
    called: dict[str, list[fx.Node]] = {}
    for node in nodes.values():
        if node.op == "call_module":
            called.setdefault(calls.frame.absolute(str(node.target)), []).append(node)
    for site in sites:
        value, users = nodes[site.value], [nodes[use.user] for use in site.uses]
        planned = sorted((use.user, use.slot) for use in site.uses)
        every = sorted(
            (calls.frame.name(user), slot)
            for user in value.users
            for slot, read in enumerate(readings(user))
            if read is value
        )
        mixed = value in involved or any(read in involved for user in users for read in readings(user))
        whole = planned == every and not mixed
        # timm calls an identity where a block could be: who calls it must be a graph that does so no more.
        stand_ins = called.get(site.module, [])
        gates = [node for node in involved if mixed and _meets(node, value, users)]
        asked = _asks(calls, site)
        seen = [*stand_ins, *gates, *(() if whole else users), *([value] if asked and not whole else [])]
        if whole:
            value = _behind_identity(calls, value, stand_ins)
        yield Item(site, value, tuple(dict.fromkeys(seen)), whole, _relative(calls.frame, site.scope), asked)


def _asks(calls: Calls, site: Site) -> bool:
    """Whether the forward of the module that is to hold the block reads the block's name, and would call it too.

    Units of timm have `se = None` and say `if self.se is not None: x = self.se(x)`; others ask `hasattr(self, "se")`.
    """
    path, _, name = _relative(calls.frame, site.module).rpartition(".")
    return name in read_by_forward(calls.frame.traced.root.get_submodule(path))


def _behind_identity(calls: Calls, value: fx.Node, stand_ins: list[fx.Node]) -> fx.Node:
    """What a call gives, where nothing but identities stand between it and `value`, which is made inside.

    The call need not be opened then: Ultralytics' `Conv(act=False)` ends in an identity, and has another forward once
    its norm is folded into the convolution.
    """
    chain, found, node = calls.chain(value), value, value
    while len(node.users) == 1:
        (node,) = node.users
        around = calls.chain(node)
        if node in stand_ins or not _is_identity(calls, node) or chain[: len(around)] != around:
            break
        if any(calls.by_key[key].result is node for key in chain):
            found = node
    return found


def _is_identity(calls: Calls, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    module = calls.frame.traced.root.get_submodule(str(node.target))
    return type(module) is nn.Identity and not module._forward_hooks and not module._forward_pre_hooks


def _meets(node: fx.Node, value: fx.Node, users: list[fx.Node]) -> bool:
    return node is value or any(node in readings(user) for user in users)


def _removals(calls: Calls, nodes: dict[str, fx.Node], removals: Iterable[Removal]) -> Iterator[Item]:
    for gone in removals:
        output, value = nodes[gone.output], nodes[gone.value]
        seen = tuple(unread_after(output, value))
        scope = _relative(calls.frame, gone.scope)
        chain = _common([calls.chain(node) for node in seen])
        if chain and calls.path(chain) == scope:
            # A gate's own module goes whole: who calls it must see that.
            scope = calls.path(chain[:-1])
        yield Item(gone, value, seen, False, scope)


def unread_after(output: fx.Node, value: fx.Node) -> list[fx.Node]:
    """What nobody reads any more once readers of `output` read `value`."""
    dead, queue = {output}, [output]
    while queue:
        for source in queue.pop().all_input_nodes:
            if source is not value and source.op != "placeholder" and source not in dead and dead >= set(source.users):
                dead.add(source)
                queue.append(source)
    return [node for node in output.graph.nodes if node in dead]


def _relative(frame: Frame, path: str) -> str:
    return path.removeprefix(f"{frame.path}.") if frame.path and path != frame.path else "" if frame.path else path


def _no_hooks(calls: Calls, owner: Owner) -> None:
    for key in owner.open:
        path = calls.path_of(key)
        module = calls.frame.traced.root.get_submodule(path)
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            where = calls.frame.absolute(path)
            text = f"{where!r} has hooks, and a block inside it is read outside it: they would never run"
            raise fail("SE403", text, "remove the hooks, insert the blocks, and register the hooks again")
