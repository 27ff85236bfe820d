"""The cost of a plan's blocks, each built alone, and errors for those that cannot be built or run."""

from __future__ import annotations

import torch

from sesurgery.accounting import Cost, cost, output_of
from sesurgery.diagnostics import Diagnostic, SpecError
from sesurgery.graph import Shape
from sesurgery.planner import FOR_VOLUMES, Plan, Site
from sesurgery.spec import Spec


def added(before: Cost, sites: tuple[Cost, ...]) -> Cost:
    """The cost with blocks: every block is a module of its own, called once, so costs add up."""
    return Cost(
        before.params + sum(site.params for site in sites),
        before.macs + sum(site.macs for site in sites),
    )


def costs_or_mistakes(spec: Spec, made: Plan) -> tuple[Cost, ...]:
    """The sites' costs; raises SE305 pointing at every rule whose block cannot be built, fails or changes its map."""
    mistakes: dict[str, Diagnostic] = {}
    good: set[tuple[str, Shape]] = set()
    for site in made.sites:
        kind = (site.rule, site.shape)
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
    """Why the block at this site fails and what to do, or None; on fake tensors where possible."""
    where, shape = f"for {site.key} ({site.channels} channels)", site.shape
    if site.unfit:
        return f"the block cannot be built {where}: {site.unfit}", FOR_VOLUMES
    try:
        with torch.random.fork_rng(devices=[]):
            block = site.build()
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
            shape = site.shape
            key = (repr(site.block), shape)
            if key not in known:
                known[key] = cost(site.build(), shape)
            costs.append(known[key])
    return tuple(costs)
