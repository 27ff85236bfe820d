"""Carrying a plan out on a copy of a network: gates are removed, blocks are built, and readers are rerouted to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import is_not

from torch import fx, nn
from torch.fx.node import map_arg

from sesurgery.diagnostics import Diagnostic, SesurgeryError
from sesurgery.planner import FOR_VOLUMES, Plan, Removal
from sesurgery.surgeons.base import Weights
from sesurgery.surgeons.fx import places
from sesurgery.surgeons.fx.changed import change, forbid_fusing, hold
from sesurgery.surgeons.fx.inputs import Given
from sesurgery.surgeons.fx.layout import TO_FIRST, TO_LAST
from sesurgery.surgeons.fx.operations import ModeGraph, Operation, faithful
from sesurgery.surgeons.fx.view import Drawing, Frame, scope_of
from sesurgery.surgeons.grafting import graft


def carry_out(
    part: nn.Module,
    drawing: Drawing,
    plan: Plan,
    given: Given,
    weights: Weights | None,
    tell: Callable[[str], object],
) -> None:
    """Change a network in place; `given` is what it is called with, `tell` is called with what could not be compared.

    Raises SE305 or SE405 for every block that cannot be built or named, Unfaithful (SE403) if a graph is another
    function than the forward that it replaces, and no smaller one's can replace it.
    """
    frames = drawing.frames
    found = faithful(part, frames, plan, given, tell)
    for operation in found:
        operation.register(operation.module)
        for each in operation.graphs:
            for gone in operation.removals:
                _remove(each.graph, each.nodes, gone)
    _uninstall_from_frames(part, frames, plan.removals)
    for operation in found:
        _remove_placeholders(part, operation)
    blocks = _build(part, plan, weights)
    for operation in found:
        for each in operation.graphs:
            _wire(each, operation, drawing.last)
    for path, block in blocks.items():
        _install(part, path, block)
    for operation in found:
        change(operation.module, [each.graph for each in operation.graphs], operation.read)


def _reroute(user: fx.Node, slot: int, new: fx.Node) -> None:
    """Make the user read `new` at its input number `slot`."""
    count = -1

    def replace(value: fx.Node) -> fx.Node:
        nonlocal count
        count += 1
        return new if count == slot else value

    user.args, user.kwargs = map_arg((user.args, user.kwargs), replace)


def _remove_placeholders(part: nn.Module, operation: Operation) -> None:
    """Remove the identities with the blocks' names, which timm keeps where a block could be.

    They do nothing, but are called, on another value than the block will be.
    """
    prefix = f"{operation.path}." if operation.path else ""
    paths = {site.module for site, _ in operation.sites}
    needed = {
        name
        for site, whole in operation.sites
        for name in (site.value, *(() if whole else (use.user for use in site.uses)))
    }
    for path in paths:
        if not path.startswith(prefix):
            continue
        parent, _, name = path.rpartition(".")
        if type(getattr(part.get_submodule(parent), name, None)) is not nn.Identity:
            continue
        calls = [
            [node for node in each.graph.nodes if node.op == "call_module" and node.target == path.removeprefix(prefix)]
            for each in operation.graphs
        ]
        kept = {each.nodes[name] for each in operation.graphs for name in needed if name in each.nodes}
        if not kept.isdisjoint(node for nodes in calls for node in nodes):
            continue
        for nodes in calls:
            for node in nodes:
                node.replace_all_uses_with(node.all_input_nodes[0])
                node.graph.erase_node(node)
        delattr(part.get_submodule(parent), name)


def _build(model: nn.Module, plan: Plan, weights: Weights | None) -> dict[str, nn.Module]:
    """Every site's block on the network's device and in its dtype; raises SE305 or SE405 for all sites at once."""
    reference = next((part for part in model.parameters() if part.is_floating_point()), None)
    blocks: dict[str, nn.Module] = {}
    mistakes: list[Diagnostic] = []
    for site in plan.sites:
        if _taken(model, site.module) or site.module in blocks:
            text = f"{site.key}: the network already has something called {site.module!r}"
            mistakes.append(Diagnostic("SE405", text, hint="give the rule another 'name'", site=site.key))
            continue
        if site.unfit:
            mistakes.append(Diagnostic("SE305", f"{site.key}: {site.unfit}", hint=FOR_VOLUMES, site=site.key))
            continue
        try:
            block = site.build()
        except Exception as error:
            hint = "change the block's options"
            mistakes.append(Diagnostic("SE305", f"{site.key}: {error}", hint=hint, site=site.key))
            continue
        if reference is not None:
            block.to(device=reference.device, dtype=reference.dtype)
        blocks[site.module] = block.train(model.training)
        mistakes += graft(site, block, weights)
    if mistakes:
        raise SesurgeryError(mistakes)
    return blocks


def _wire(mode: ModeGraph, operation: Operation, last: frozenset[str]) -> None:
    """Call every site's block in the graph, and let exactly the planned readings read it.

    A map of `last` has its channels last: it is turned round for the block, and back.
    """
    prefix = f"{operation.path}." if operation.path else ""
    for site, whole in operation.sites:
        value = mode.nodes.get(site.value)
        if value is None:
            raise places.missing(site.key, operation.path)
        target = site.module.removeprefix(prefix)
        with mode.graph.inserting_before(_behind(value).next):
            turned = mode.graph.call_method("permute", (value, *TO_FIRST)) if site.value in last else value
            scaled = mode.graph.create_node("call_module", target, (turned,), name=target.replace(".", "_"))
            entry = scaled if turned is value else turned
            if turned is not value:
                scaled = mode.graph.call_method("permute", (scaled, *TO_LAST))
        if whole:
            value.replace_all_uses_with(scaled, delete_user_cb=partial(is_not, entry))
            continue
        # `out += identity` mutates: readings are rerouted, never a name.
        for use in site.uses:
            if use.user in mode.nodes:
                _reroute(mode.nodes[use.user], use.slot, scaled)


def _behind(value: fx.Node) -> fx.Node:
    """The node to insert behind: a graph's arguments come first, all together."""
    if value.op != "placeholder":
        return value
    last = value
    while last.next.op == "placeholder":
        last = last.next
    return last


def _remove(graph: fx.Graph, nodes: dict[str, fx.Node], gone: Removal) -> set[str]:
    """Let all readers of a gate's output read its input; returns the targets of the nodes erased with the gate."""
    output, value = nodes[gone.output], nodes[gone.value]
    output.replace_all_uses_with(value)
    dead, targets = [output], set()
    while dead:
        node = dead.pop()
        sources = node.all_input_nodes
        if node.op in ("call_module", "get_attr"):
            targets.add(str(node.target))
        graph.erase_node(node)
        dead += [
            source for source in sources if not source.users and source is not value and source.op != "placeholder"
        ]
    return targets


def _uninstall_from_frames(part: nn.Module, frames: Iterable[Frame], removals: Iterable[Removal]) -> None:
    """Delete the modules of the gates that went."""
    for frame in frames:
        graph = frame.traced.graph
        names = {frame.name(node): node for node in graph.nodes}
        own = [gone for gone in removals if gone.output in names]
        prefix = f"{frame.path}." if frame.path else ""
        erased = [(gone.scope.removeprefix(prefix), _remove(graph, names, gone)) for gone in own]
        if erased:
            _uninstall(part.get_submodule(frame.path), [graph], erased)


def _uninstall(root: nn.Module, graphs: list[fx.Graph], erased: list[tuple[str, set[str]]]) -> None:
    """Delete the modules that only erased nodes called; a gate's own module whole, where nothing in it is left.

    `erased` holds the scope of every gate that went, and the targets of its nodes.
    """
    nodes = [node for graph in graphs for node in graph.nodes]
    left = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    alive = {outer for path in {*left, *map(scope_of, nodes)} for outer in _outwards(path)}
    for scope, targets in erased:
        for target in {scope} if scope and scope not in alive else targets - left:
            parent, _, name = target.rpartition(".")
            try:
                owner = root.get_submodule(parent)
            except AttributeError:
                # It went with a gate that it was a part of.
                continue
            if name in owner._modules:
                # As timm writes it if there is none: code that asks `if self.se is not None` goes on working.
                del owner._modules[name]
                owner.__dict__[name] = None


def _outwards(path: str) -> Iterator[str]:
    """The path, and those of all modules around it."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _taken(model: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    return hasattr(type(owner), name) or getattr(owner, name, None) is not None


def _install(root: nn.Module, path: str, block: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    owner = root.get_submodule(parent)
    # timm keeps `self.se = None` where a block could be: the module takes that attribute's place.
    owner.__dict__.pop(name, None)
    owner.add_module(name, block)
    hold(owner, name)
    # Called by the graph of an outer module, the block stays where this one fuses its parts in place.
    forbid_fusing(owner, ["fuse"])
    for outer in _outwards(parent.rpartition(".")[0]):
        forbid_fusing(root.get_submodule(outer))
    if parent:
        forbid_fusing(root)
