"""The verb `plan`: resolve a spec against its network and say what it will cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sesurgery.accounting import CONVENTION, Cost
from sesurgery.diagnostics import SesurgeryError, located
from sesurgery.networks.block_costs import added, costs_or_mistakes
from sesurgery.networks.opened import OpenNetwork
from sesurgery.networks.opening import open_own
from sesurgery.planner import Plan
from sesurgery.spec import Spec
from sesurgery.spec.plugins import options_to_dict
from sesurgery.surgeons.base import Leaf


@dataclass(frozen=True)
class NetworkPlan:
    """A plan, the unchanged network it is for, and the network's cost before and after."""

    spec: Spec
    network: OpenNetwork
    plan: Plan
    before: Cost
    sites: tuple[Cost, ...]
    after: Cost

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the network's values before it is trained."""
        return () if self.network.head is None else (str(self.network.head),)

    def summary(self) -> str:
        """One line: sites, parameters and MACs added."""
        removed = f"{len(self.plan.removals)} gates removed, " if self.plan.removals else ""
        return (
            f"{len(self.sites)} sites, {removed}{_change(self.before.params, self.after.params)} parameters, "
            f"{_change(self.before.macs, self.after.macs)} MACs{unseen(self.network.leaves)}"
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
            "notes": list(self.notes),
            "leaves": [asdict(leaf) for leaf in self.network.leaves],
        }


def unseen(leaves: tuple[Leaf, ...]) -> str:
    """The addition to a summary where convolutions lie in parts that cannot be traced."""
    blind = [leaf for leaf in leaves if leaf.hidden]
    if not blind:
        return ""
    count, first = sum(leaf.hidden for leaf in blind), blind[0]
    parts = f"{len(blind)} parts" if len(blind) > 1 else "a part"
    where = first.path or "the network"
    return f"; not seen: {count} convolutions in {parts} that cannot be traced ({where}: {first.why})"


def plan(spec: Spec) -> NetworkPlan:
    """Plan a spec on its own network, built from its seed; raises SpecError holding every mistake."""
    return plan_on(spec, open_own(spec))


def plan_on(spec: Spec, network: OpenNetwork) -> NetworkPlan:
    """Plan a spec on a network; a network that cannot be drawn or counted is an error at the spec's own keys."""
    try:
        _, before = network.view, network.cost
    except SesurgeryError as error:
        raise located(error, {code: spec.span(*place) for code, place in network.keys.items()}) from error
    made = network.plan(spec)
    sites = costs_or_mistakes(spec, made)
    # Removed gates are part of the network: only the changed network shows what is left.
    after = network.apply(made).cost if made.removals else added(before, sites)
    return NetworkPlan(spec, network, made, before, sites, after)


def _change(before: int, after: int) -> str:
    share = f" ({(after - before) / before:+.1%})" if before else ""
    return f"{'-' if after < before else '+'}{_short(abs(after - before))}{share}"


def _short(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)
