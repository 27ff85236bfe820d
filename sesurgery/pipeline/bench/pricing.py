"""Pricing the blocks of a network: engines with some of them race engines with the others."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from sesurgery.accounting import Cost
from sesurgery.backends.base import Array, Backend, BuildsFromOnnx
from sesurgery.diagnostics import fail
from sesurgery.networks.block_costs import site_costs
from sesurgery.pipeline.bench.variants import PROFILED, Variant, Variants, attributed, tells_bytes
from sesurgery.planner import Plan, Site
from sesurgery.spec.engines import Engine
from sesurgery.spec.latency import Latency
from sesurgery.talk import Silent, Talk
from sesurgery.temporaries import folder_for
from sesurgery.verification import weighing
from sesurgery.verification.cost import BlockPrice, Prices
from sesurgery.verification.weighing import Pair

MOST_KINDS, MOST_BLOCKS = 16, 32
"""How many kinds of blocks, and how many blocks, are weighed each for itself: each takes two engines."""
Priced = tuple[Site, Cost]


@dataclass(frozen=True)
class Subject:
    """A network to price: its file with all blocks, where they are, and how its engines are built and raced."""

    name: str
    model: onnx.ModelProto
    plan: Plan
    inside: str
    wanted: Engine
    latency: Latency
    feeds: Mapping[str, Array]
    trained: bool
    together: bool
    """Whether blocks that are alike are weighed together."""
    one_by_one: bool = False
    """Whether each group of blocks is left out alone, in the place of pairs of halves."""
    lowering: tuple[str, ...] | None = None
    run: Path | None = None
    talk: Talk = field(default_factory=Silent)

    def module(self, site: Site) -> str:
        return f"{self.inside}{site.module}"

    @property
    def groups(self) -> list[list[Priced]]:
        """The blocks that are weighed as one, with their costs: alike, or of one stage where too many kinds differ."""
        priced = list(zip(self.plan.sites, site_costs(self.plan), strict=True))
        if not self.together and len(priced) <= MOST_BLOCKS:
            return [[each] for each in priced]
        alike: dict[Hashable, list[Priced]] = {}
        staged: dict[Hashable, list[Priced]] = {}
        for site, spent in priced:
            alike.setdefault((repr(site.block), site.shape), []).append((site, spent))
            staged.setdefault((repr(site.block), site.stage), []).append((site, spent))
        return list((alike if len(alike) <= MOST_KINDS else staged).values())


@dataclass(frozen=True)
class _Race:
    """The race of a subject's engines: in the first pair all blocks against none, in the others some against some."""

    groups: list[list[Priced]]
    weights: np.ndarray
    """How much each pair's difference counts for each group, [groups, pairs but the first]."""
    shared: np.ndarray
    """The same for what engines with blocks share."""
    built: list[tuple[Variant, Variant]]
    differences: weighing.Differences
    placements: weighing.Placements
    profile: Mapping[str, float]
    """What the profile of the whole engine gives to each site."""

    @property
    def whole(self) -> Variant:
        """The engine with all blocks."""
        return self.built[0][0]


def prices(subject: Subject) -> Prices:
    """The price list: the whole engine against the plain one, and the blocks weighed against one another."""
    backend: Backend = subject.wanted.backend.options
    if not subject.plan.sites:
        raise fail("SE402", f"{subject.name} has no block of ours", "give a spec that inserts blocks")
    if not isinstance(backend, BuildsFromOnnx):
        text = f"{subject.wanted.backend.name} builds from a network of torch; blocks are left out of ONNX files"
        raise fail("SE603", text, "take --backend onnxruntime or openvino")
    threads = subject.latency.threads or len(os.sched_getaffinity(0))
    race = _race(subject, threads)
    return Prices(
        blocks=_block_prices(subject, race),
        whole=float(np.median([each.kept[0] for each in race.placements[0]])),
        shared=race.differences.combined(np.pad(race.shared, (1, 0))) if race.shared.any() else None,
        total=race.differences.combined(np.eye(len(race.built))[0]),
        batch=subject.latency.batch,
        threads=threads,
        engine=f"{subject.wanted.backend.name} {subject.wanted.precision}",
        trained=subject.trained,
        pairs=len(race.built),
        placements=len(race.placements[0]),
        bytes_of="layers" if tells_bytes(backend) else "nodes",
    )


def _race(subject: Subject, threads: int) -> _Race:
    """Build the engines of all pairs, and race them."""
    groups = subject.groups
    count = len(groups)
    design = weighing.one_by_one(count) if subject.one_by_one else weighing.balanced(count) + weighing.singles(count)
    found = weighing.weights(design, count)
    weights, shared = found[:-1], found[-1]
    total = (frozenset(range(count)), frozenset[int]())
    with folder_for("prices") as folder:
        asked = (subject.feeds, threads, Path(folder), subject.lowering, subject.run)
        variants = Variants(subject.model, subject.wanted, *asked)
        built = _built(subject, variants, groups, [total, *design])
        raced = [(one.file, other.file) for one, other in built]
        # The race of all blocks against none tells no price: what prices add up to is compared with it.
        shares = np.pad(weights, ((0, 0), (1, 0)))
        told = subject.talk.progress
        differences, placements = weighing.weigh(raced, subject.feeds, subject.latency, shares, told)
        whole = built[0][0]
        layers = variants.layers(whole.file, PROFILED)
    keys = {subject.module(site): site.key for site in subject.plan.sites}
    profile = {} if layers is None else attributed(layers, whole.owners, keys)
    return _Race(groups, weights, shared, built, differences, placements, profile)


def _block_prices(subject: Subject, race: _Race) -> tuple[BlockPrice, ...]:
    """Every block with its part of its group's price, in the order of the plan."""
    pairs = race.built[1:]
    moved = race.weights @ [one.bytes - other.bytes for one, other in pairs]
    more = race.weights @ [(one.layers or 0) - (other.layers or 0) for one, other in pairs]
    shares = np.pad(race.weights, ((0, 0), (1, 0)))
    blocks = [
        BlockPrice(
            key=site.key,
            module=subject.module(site),
            stage=site.stage,
            channels=site.channels,
            height=site.height,
            width=site.width,
            time=race.differences.combined(shares[number]).over(len(group)),
            params=spent.params,
            macs=spent.macs,
            profile=race.profile.get(site.key),
            kernels=None if race.whole.layers is None else round(float(more[number]) / len(group)),
            bytes=round(float(moved[number]) / len(group)),
            alike=len(group),
        )
        for number, group in enumerate(race.groups)
        for site, spent in group
    ]
    order = {site.key: place for place, site in enumerate(subject.plan.sites)}
    return tuple(sorted(blocks, key=lambda block: order[block.key]))


def _built(
    subject: Subject, variants: Variants, groups: list[list[Priced]], pairs: list[Pair]
) -> list[tuple[Variant, Variant]]:
    """The engines of each pair."""
    modules = [[subject.module(site) for site, _ in group] for group in groups]
    wanted = list(dict.fromkeys(side for pair in pairs for side in pair))
    made: dict[frozenset[int], Variant] = {}
    for number, side in enumerate(wanted):
        subject.talk.progress("building engines with some of the blocks", number, len(wanted))
        gone = (module for group, names in enumerate(modules) if group not in side for module in names)
        made[side] = variants.build(f"variant-{number}", list(gone))
    subject.talk.progress("building engines with some of the blocks", len(wanted), len(wanted))
    return [(made[one], made[other]) for one, other in pairs]
