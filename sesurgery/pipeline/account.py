"""The cost of a network module by module, before and after a plan: `inspect --account` and `plan --account`."""

from __future__ import annotations

import torch
from torch import nn

from sesurgery.accounting import account
from sesurgery.counting import Convention
from sesurgery.diagnostics import fail
from sesurgery.graph import Shape
from sesurgery.networks.sources import surgeon_for
from sesurgery.pipeline.inspect import Network, look
from sesurgery.pipeline.plan import Planned
from sesurgery.reports.accounts import Accounts, SiteCost


def account_of_model(
    model: str, shape: Shape | None = None, *, convention: Convention = "torch", depth: int | None = None
) -> Accounts:
    """What every module of a network costs; `model` and `shape` are those of `inspect`."""
    seen = look(model, shape)
    part = surgeon_for(seen.spec).part(_module(seen.network))
    counted = account(part, seen.spec.input.shape, convention)
    return Accounts(counted if depth is None else counted.by_part(depth))


def account_of_plan(planned: Planned, *, convention: Convention = "torch", depth: int | None = None) -> Accounts:
    """What every module costs before and after the plan, and every site's block; the plan is carried out on a copy."""
    network, surgeon, shape = _module(planned.network), surgeon_for(planned.spec), planned.spec.input.shape
    with torch.random.fork_rng(devices=[]):
        changed = surgeon.apply(network, planned.plan)
    before = account(surgeon.part(network), shape, convention)
    after = account(surgeon.part(changed), shape, convention)
    sites = tuple(SiteCost(site.key, site.module, after.part(site.module)) for site in planned.plan.sites)
    if depth is not None:
        before, after = before.by_part(depth), after.by_part(depth)
    return Accounts(before, after, sites)


def _module(network: Network) -> nn.Module:
    if isinstance(network, nn.Module):
        return network
    text = "a network in an ONNX file has no modules to account for"
    raise fail("SE302", text, "name the network that the file was exported from")
