"""The verb `plan`: resolve a spec against its network and say what it will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sesurgery.accounting import CONVENTION, Cost
from sesurgery.diagnostics import SesurgeryError, located
from sesurgery.networks.block_costs import added, costs_or_mistakes
from sesurgery.networks.opened import OpenNetwork, faithfully
from sesurgery.networks.opening import open_own
from sesurgery.planner import Plan
from sesurgery.reasons import by_kind
from sesurgery.reports.wording import plural
from sesurgery.spec import Spec
from sesurgery.spec.plugins import options_to_dict
from sesurgery.surgeons.base import Leaf, Weights


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
        hidden = unseen(self.network.leaves)
        removed = f"{len(self.plan.removals)} gates removed, " if self.plan.removals else ""
        return (
            f"{len(self.sites)} sites, {removed}{_change(self.before.params, self.after.params)} parameters, "
            f"{_change(self.before.macs, self.after.macs)} MACs{'; ' if hidden else ''}{hidden}"
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
                    **({} if site.frames is None else {"frames": site.frames}),
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


def unseen(leaves: Sequence[Leaf]) -> str:
    """What lies in parts that cannot be traced: how much, where, and why; empty where nothing does."""
    blind = [leaf for leaf in leaves if leaf.hidden or leaf.gates or leaf.kind == "not_the_same"]
    if not blind:
        return ""
    counts = {"convolution": sum(leaf.hidden for leaf in blind), "channel gate": sum(leaf.gates for leaf in blind)}
    what = " and ".join(plural(count, noun) for noun, count in counts.items() if count) or "the operations"
    groups = [
        f"{_places([reason.where for reason in group])}: {group[0].text}"
        for group in by_kind(leaf.reason for leaf in blind)
    ]
    return f"not seen: {what} in {plural(len(blind), 'part')} that cannot be traced ({'; '.join(groups)})"


def _places(paths: list[str], most: int = 3) -> str:
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(path or "the network" for path in paths[:most]) + more


def plan(spec: Spec) -> NetworkPlan:
    """Plan a spec on its own network, built from its seed; raises SpecError holding every mistake."""
    return plan_on(spec, open_own(spec))


def plan_on(spec: Spec, network: OpenNetwork) -> NetworkPlan:
    """Plan a spec on a network; a network that cannot be drawn or counted is an error at the spec's own keys."""
    return faithfully(network, lambda each: _planned(spec, each))


def carry_out(planned: NetworkPlan, weights: Weights | None = None) -> tuple[NetworkPlan, OpenNetwork]:
    """The changed network and the plan that was carried out, with a warning for what could not be compared.

    That is another plan, with fewer sites, where a module turns out to have no graph that is the same function.
    """

    def attempt(network: OpenNetwork) -> tuple[NetworkPlan, OpenNetwork]:
        again = planned if network is planned.network else _planned(planned.spec, network)
        changed = network.apply(again.plan, weights)
        said = tuple(dict.fromkeys((*again.plan.warnings, *changed.warnings)))
        return replace(again, plan=replace(again.plan, warnings=said)), changed

    return faithfully(planned.network, attempt)


def _planned(spec: Spec, network: OpenNetwork) -> NetworkPlan:
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
