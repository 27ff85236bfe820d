"""The cost of a network module by module, before and after a plan: `inspect --account` and `plan --account`."""

from __future__ import annotations

import torch

from sesurgery.counting import Convention
from sesurgery.graph import Shape
from sesurgery.pipeline.inspect import open_named
from sesurgery.pipeline.plan import NetworkPlan, carry_out
from sesurgery.reports.text.accounts import Accounts, SiteCost


def account_of_model(
    model: str, shape: Shape | None = None, *, convention: Convention = "torch", depth: int | None = None
) -> Accounts:
    """What every module of a network costs; `model` and `shape` are those of `inspect`."""
    counted = open_named(model, shape).network.account(convention)
    return Accounts(counted if depth is None else counted.by_part(depth))


def account_of_plan(planned: NetworkPlan, *, convention: Convention = "torch", depth: int | None = None) -> Accounts:
    """What every module costs before and after the plan, and every site's block; the plan is carried out on a copy."""
    with torch.random.fork_rng(devices=[]):
        planned, changed = carry_out(planned)
    before = planned.network.account(convention)
    after = changed.account(convention)
    sites = tuple(SiteCost(site.key, site.module, after.part(site.module)) for site in planned.plan.sites)
    if depth is not None:
        before, after = before.by_part(depth), after.by_part(depth)
    return Accounts(before, after, sites)
