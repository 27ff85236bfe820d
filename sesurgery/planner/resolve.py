"""Resolve one rule against the graph: its sites, and the rejected candidates with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from sesurgery.catalog import Ref
from sesurgery.graph import GraphView, Node, Op, Shape, Use, is_one_pixel
from sesurgery.graph.gates import ChannelGate, channel_gates
from sesurgery.graph.idioms import squeezed, stages
from sesurgery.placements.base import Match, Miss, Placement
from sesurgery.planner.model import Rejection, Removal, Site, key_of
from sesurgery.reasons import Reason
from sesurgery.spec.surgery import Filters, InsertRule, RemoveRule, ReplaceRule, Rule

GATED = "gated"
"""The kind of reason for a value that already has a channel gate."""


class Surroundings:
    """What all rules of one plan use: the graph, its stages, its gates, and the gates that will be removed."""

    def __init__(self, graph: GraphView) -> None:
        self.graph = graph
        self.sizes = stages(graph)
        self.gates = {gate.mul.name: gate for gate in channel_gates(graph)}
        self.gated = {value.name: gate for gate in self.gates.values() for value in _seen_through_passes(gate.value)}
        self.squeezed = squeezed(graph)
        self.gone: dict[str, str] = {}
        """Outputs of gates that a rule removes, with that rule's name."""

    def stage(self, shape: Shape) -> int | None:
        size = shape[1:]
        return self.sizes.index(size) + 1 if size in self.sizes else None


@dataclass
class Resolved:
    """The result of one rule."""

    sites: list[Site] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    @property
    def taken(self) -> int:
        return len(self.sites) or len(self.removals)

    @property
    def keys(self) -> list[str]:
        return [item.key for item in (self.sites or self.removals)]


@dataclass(frozen=True)
class _Candidate:
    """A possible site or removal of a rule, before its filters; the shape is the map's."""

    key: str
    scope: str
    shape: Shape
    stage: int | None
    match: Match | ChannelGate

    def reason(self, kind: str, text: str, figure: str = "") -> Reason:
        return Reason(kind, self.scope or self.key, text, figure)


def resolve(name: str, rule: Rule, around: Surroundings) -> Resolved:
    """Resolve one rule. Rules that remove gates must be resolved before those that insert."""
    resolved = Resolved()
    if isinstance(rule, InsertRule):
        found: Iterable[Match | Miss | ChannelGate] = (
            _after_removals(item, around) for item in rule.at.options.select(around.graph)
        )
    else:
        found = _existing(rule, around)
    asked = isinstance(rule, InsertRule) and rule.at.name in _BY_NAME
    listed = list(_candidates(name, found, around, asked))
    whys = _filtered(rule, [item for item in listed if isinstance(item, _Candidate)])
    for item in listed:
        if isinstance(item, Rejection):
            resolved.rejected.append(item)
        elif (why := whys[item.key]) is not None:
            resolved.rejected.append(Rejection(name, why))
        elif isinstance(item.match, ChannelGate):
            _take_out(name, rule, item, item.match, around, resolved)
        else:
            resolved.sites.append(_site(name, item, item.match.value.name, item.match.uses, rule))
    return resolved


def offered(placement: Placement, graph: GraphView) -> int:
    """How many sites a placement has before any filter."""
    around = Surroundings(graph)
    found = (_after_removals(item, around) for item in placement.select(graph))
    return sum(isinstance(item, _Candidate) for item in _candidates("", found, around, asked=False))


def _candidates(
    name: str, found: Iterable[Match | Miss | ChannelGate], around: Surroundings, asked: bool
) -> Iterator[_Candidate | Rejection]:
    ordinals: Counter[str] = Counter()
    for item in found:
        if isinstance(item, Miss):
            yield Rejection(name, Reason(item.kind, item.where, item.text, item.figure))
            continue
        shape = item.value.shape
        if shape is None:
            yield Rejection(name, Reason("no_map", item.scope or item.value.name, "it is not a feature map"))
            continue
        senseless = _without_sense(item, shape, around) if isinstance(item, Match) and not asked else None
        if senseless is not None:
            yield Rejection(name, senseless)
            continue
        # Counted before filtering, so that a key means the same site with any filter.
        key = key_of(name, item.scope, ordinals[item.scope])
        ordinals[item.scope] += 1
        yield _Candidate(key, item.scope, shape, around.stage(shape), item)


_BY_NAME = ("tensor", "module")
"""Placements that name their values; a named value is always taken."""


def _without_sense(match: Match, shape: Shape, around: Surroundings) -> Reason | None:
    """Why channel attention would be useless there, or None."""
    where, ask = match.scope or match.value.name, "name it with 'at: tensor' to insert here anyway"
    if shape[0] == 1:
        return Reason("one_channel", where, f"its map has only one channel; {ask}")
    if is_one_pixel(shape) and match.value.name in around.squeezed:
        text = f"it is a pooled vector: there is nothing to squeeze; {ask}"
        return Reason("pooled", where, text)
    if match.value.constant:
        return Reason("constant", where, f"its map is the same for every image; {ask}")
    return None


def _existing(rule: RemoveRule | ReplaceRule, around: Surroundings) -> Iterator[ChannelGate | Miss]:
    kind = rule.remove if isinstance(rule, RemoveRule) else rule.replace
    projections = {"se": 2, "effective_se": 1}.get(kind)
    for gate in around.gates.values():
        where = gate.scope or gate.mul.name
        if gate.mul.name in around.gone:
            yield Miss("taken_out", where, f"the rule {around.gone[gate.mul.name]!r} removes it already")
        elif projections is not None and gate.projections != projections:
            text = f"it is a channel gate with {gate.projections} projections, {kind!r} has {projections}"
            yield Miss("other_gate", where, text, str(gate.projections))
        else:
            yield gate


def _take_out(
    name: str, rule: Rule, candidate: _Candidate, gate: ChannelGate, around: Surroundings, resolved: Resolved
) -> None:
    around.gone[gate.mul.name] = name
    channels, *frames, height, width = candidate.shape
    resolved.removals.append(
        Removal(
            candidate.key,
            name,
            candidate.scope,
            candidate.stage,
            channels,
            height,
            width,
            gate.mul.name,
            gate.value.name,
            *frames,
        )
    )
    if isinstance(rule, ReplaceRule):
        # The new block belongs to the unit, like the old one, not to the removed module.
        owner = gate.mul.scope if gate.mul.scope != gate.scope else gate.scope.rpartition(".")[0]
        key = key_of(name, owner, sum(site.scope == owner for site in resolved.sites))
        moved = _Candidate(key, owner, candidate.shape, candidate.stage, gate)
        resolved.sites.append(_site(name, moved, gate.value.name, gate.mul.uses, rule))


def _site(name: str, candidate: _Candidate, value: str, uses: tuple[Use, ...], rule: Rule) -> Site:
    block: Ref[object] = rule.insert  # type: ignore[union-attr]
    channels, *frames, height, width = candidate.shape
    place = (candidate.key, name, candidate.scope, candidate.stage, channels, height, width)
    return Site(*place, value, uses, block, *frames)  # type: ignore[arg-type]


def _after_removals(found: Match | Miss, around: Surroundings) -> Match | Miss:
    """The match in the graph after the removals; a miss if the value keeps a gate."""
    if isinstance(found, Miss):
        return found
    value, uses = found.value, found.uses
    ends = around.gates.get(value.name)
    if ends and value.name in around.gone:
        value = ends.value
    begins = around.gated.get(value.name)
    if begins and begins.mul.name in around.gone and begins.value is value:
        own = set(begins.readings)
        uses = (*(use for use in uses if use not in own), *(begins.mul.uses if own & set(uses) else ()))
        return Match(value, uses, found.scope)
    standing = around.gates.get(value.name) or begins
    if standing and standing.mul.name not in around.gone:
        where = found.scope or value.name
        text = f"it has a channel gate already ({standing.scope or standing.mul.name}): remove or replace it"
        return Miss(GATED, where, text)
    return Match(value, uses, found.scope)


def _seen_through_passes(value: Node) -> Iterator[Node]:
    """The value, and values connected to it only by identities and drop paths."""
    yield value
    while value.op is Op.PASS:
        value = value.inputs[0]
        yield value


def _filtered(rule: Filters, candidates: list[_Candidate]) -> dict[str, Reason | None]:
    """Why the rule rejects each candidate, by key, or None; `pick` and `every` apply to the remaining ones."""
    whys = {candidate.key: _reason(rule, candidate) for candidate in candidates}
    left = [candidate for candidate in candidates if whys[candidate.key] is None]
    if rule.pick is not None:
        chosen = _picked(rule.pick, left)
        text = f"it is not the {rule.pick} of its stage"
        whys |= {item.key: item.reason("pick", text) for item in left if item.key not in chosen}
        left = [candidate for candidate in left if candidate.key in chosen]
    if rule.every is not None:
        text = f"'every' is {rule.every}"
        whys |= {item.key: item.reason("every", text) for index, item in enumerate(left) if index % rule.every}
    return whys


def _picked(which: str, candidates: list[_Candidate]) -> set[str]:
    """The key of the first or last candidate of every stage."""
    by_stage: dict[int | None, str] = {}
    for candidate in candidates if which == "last" else reversed(candidates):
        by_stage[candidate.stage] = candidate.key
    return set(by_stage.values())


def _reason(rule: Filters, candidate: _Candidate) -> Reason | None:
    """Why a filter on single candidates rejects this one, or None."""
    channels, *sizes = candidate.shape
    *_, height, width = sizes
    size, scope = "x".join(map(str, sizes)), candidate.scope
    if rule.stages is not None and candidate.stage not in rule.stages:
        if candidate.stage is None:
            return candidate.reason("no_stage", "it lies in no stage")
        return candidate.reason("stages", f"stage {candidate.stage} is not in 'stages'", str(candidate.stage))
    if rule.within is not None and not matches(scope, rule.within):
        return candidate.reason("within", f"the scope {scope!r} is not 'within' {_listed(rule.within)}")
    if rule.except_ is not None and matches(scope, rule.except_):
        return candidate.reason("except", f"the scope {scope!r} is in 'except' {_listed(rule.except_)}")
    bounds: Mapping[str, tuple[bool, str]] = {
        "min_channels": (channels < (rule.min_channels or 0), f"it has {channels} channels"),
        "max_channels": (rule.max_channels is not None and channels > rule.max_channels, f"it has {channels} channels"),
        "min_size": (min(height, width) < (rule.min_size or 0), f"its map is {size}"),
        "max_size": (rule.max_size is not None and max(height, width) > rule.max_size, f"its map is {size}"),
    }
    for key, (broken, fact) in bounds.items():
        if broken:
            return candidate.reason(key, f"{fact}, '{key}' is {getattr(rule, key)}", fact)
    return None


def matches(scope: str, globs: Iterable[str]) -> bool:
    """Whether a scope matches any of the globs."""
    return any(fnmatchcase(scope, glob) for glob in globs)


def _listed(globs: tuple[str, ...]) -> str:
    return ", ".join(repr(glob) for glob in globs)
