"""The verb `plan`: resolve a spec against its network and say what it will cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from sesurgery import planner
from sesurgery.accounting import CONVENTION, Cost, cost, output_of
from sesurgery.diagnostics import Diagnostic, SesurgeryError, SpecError, located
from sesurgery.graph import GraphView
from sesurgery.networks import sources
from sesurgery.networks.sources import surgeon_for
from sesurgery.planner import Plan, Site
from sesurgery.spec import Spec
from sesurgery.spec.model import OnnxModel
from sesurgery.spec.plugins import options_to_dict
from sesurgery.surgeons.base import Leaf

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Planned:
    """A plan with the untouched network it is for and its graph, and what the network costs before and after."""

    spec: Spec
    network: nn.Module | onnx.ModelProto
    view: GraphView
    leaves: tuple[Leaf, ...]
    plan: Plan
    before: Cost
    sites: tuple[Cost, ...]
    after: Cost

    def summary(self) -> str:
        """One line: sites, parameters and MACs added."""
        removed = f"{len(self.plan.removals)} gates removed, " if self.plan.removals else ""
        return (
            f"{len(self.sites)} sites, {removed}{_change(self.before.params, self.after.params)} parameters, "
            f"{_change(self.before.macs, self.after.macs)} MACs{unseen(self.leaves)}"
        )

    def to_dict(self) -> dict[str, object]:
        """The plan as plain data for `plan --json`."""
        return {
            "sites": [
                {
                    "key": site.key,
                    "rule": site.rule,
                    "scope": site.scope,
                    "stage": site.stage,
                    "channels": site.channels,
                    "height": site.height,
                    "width": site.width,
                    "block": options_to_dict(site.block, "block"),
                    "params": spent.params,
                    "macs": spent.macs,
                    "value": site.value,
                    "module": site.module,
                }
                for site, spent in zip(self.plan.sites, self.sites, strict=True)
            ],
            "removals": [
                {"key": gone.key, "rule": gone.rule, "scope": gone.scope, "stage": gone.stage, "value": gone.value}
                for gone in self.plan.removals
            ],
            "rejected": [item.to_dict() for item in self.plan.rejected],
            "totals": {
                "params_before": self.before.params,
                "params_after": self.after.params,
                "macs_before": self.before.macs,
                "macs_after": self.after.macs,
                "macs_convention": CONVENTION,
            },
            "stages": [list(size) for size in self.plan.stages],
            "warnings": list(self.plan.warnings),
            "leaves": [asdict(leaf) for leaf in self.leaves],
        }


def unseen(leaves: tuple[Leaf, ...]) -> str:
    """What a summary adds where convolutions lie in parts that tracing could not look into."""
    blind = [leaf for leaf in leaves if leaf.hidden]
    if not blind:
        return ""
    count, first = sum(leaf.hidden for leaf in blind), blind[0]
    parts = f"{len(blind)} parts" if len(blind) > 1 else "a part"
    where = first.path or "the network"
    return f"; not seen: {count} convolutions in {parts} that cannot be traced ({where}: {first.why})"


def plan(spec: Spec) -> Planned:
    """Plan a spec on its own network, built from its seed; raises SpecError holding every mistake."""
    if isinstance(spec.model, OnnxModel):
        from sesurgery.pipeline.onnx import plan_onnx

        return plan_onnx(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        network = sources.build(spec)
    surgeon = surgeon_for(spec)
    try:
        sight = surgeon.look(network)
    except SesurgeryError as error:
        # The surgeon knows the network and not the file: these are the two keys its complaints are about.
        places = {"SE306": spec.span("model", "submodule")}
        raise located(
            error, {**places, "SE304": spec.span("input", "shape"), "SE403": spec.span("model", "name")}
        ) from error
    made = planner.plan(spec, sight.view)
    before, sites = cost(surgeon.part(network), spec.input.shape), costs_or_mistakes(spec, made)
    if made.removals:
        # What goes is part of the network: only the changed one tells what is left.
        after = cost(surgeon.part(surgeon.apply(network, made)), spec.input.shape)
    else:
        after = added(before, sites)
    return Planned(spec, network, sight.view, sight.leaves, made, before, sites, after)


def added(before: Cost, sites: tuple[Cost, ...]) -> Cost:
    """The cost with blocks: every block is a module of its own, called once, so costs add up."""
    return Cost(
        before.params + sum(site.params for site in sites),
        before.macs + sum(site.macs for site in sites),
    )


def costs_or_mistakes(spec: Spec, made: Plan) -> tuple[Cost, ...]:
    """The sites' costs; raises SE305 pointing at every rule whose block cannot be built, fails or changes its map."""
    mistakes: dict[str, Diagnostic] = {}
    good: set[tuple[str, int, int, int]] = set()
    for site in made.sites:
        kind = (site.rule, site.channels, site.height, site.width)
        if site.rule in mistakes or kind in good:
            continue
        if (found := _obstacle(site)) is not None:
            text, hint = found
            mistakes[site.rule] = Diagnostic(
                "SE305", text, spec.span("surgery", made.rules.index(site.rule), "insert"), hint
            )
        good.add(kind)
    if mistakes:
        raise SpecError(list(mistakes.values()))
    return site_costs(made)


def _obstacle(site: Site) -> tuple[str, str] | None:
    """What is wrong with the block at this site and what to do, or None; nothing is computed where that is possible."""
    where, shape = f"for {site.key} ({site.channels} channels)", (site.channels, site.height, site.width)
    try:
        with torch.random.fork_rng(devices=[]):
            block = site.block.options.build(site.channels)
    except Exception as error:
        return f"the block cannot be built {where}: {error}", "change the block's options"
    try:
        output = output_of(block, shape)
    except Exception as error:
        return f"the block cannot be run {where}: {error}", "change the block's options"
    hint = "a block maps [N, C, H, W] to the same shape"
    if not isinstance(output, torch.Tensor):
        return f"the block returns {type(output).__name__}, not a tensor, at {site.key}", hint
    if tuple(output.shape) != (1, *shape):
        was, found = ("x".join(map(str, size)) for size in (shape, output.shape[1:]))
        return f"the block changes the map at {site.key} from {was} to {found or 'a single value'}", hint
    return None


def site_costs(made: Plan) -> tuple[Cost, ...]:
    """What each site's block costs, in the plan's order."""
    known: dict[object, Cost] = {}
    costs = []
    with torch.random.fork_rng(devices=[]):
        for site in made.sites:
            shape = (site.channels, site.height, site.width)
            key = (repr(site.block), shape)
            if key not in known:
                known[key] = cost(site.block.options.build(site.channels), shape)
            costs.append(known[key])
    return tuple(costs)


def _change(before: int, after: int) -> str:
    share = f" ({(after - before) / before:+.1%})" if before else ""
    return f"{'-' if after < before else '+'}{_short(abs(after - before))}{share}"


def _short(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)
