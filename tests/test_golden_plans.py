"""Where SE goes in networks of each kind, as a table that a person can check against the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sesurgery import pipeline
from sesurgery.planner import Plan

GOLDEN = Path(__file__).parent / "golden" / "plans"


@dataclass(frozen=True)
class Network:
    """A network and its input; `insert` is the block, as the paper of the network (or of SE) has it."""

    file: str
    model: dict[str, Any]
    shape: tuple[int, int, int] = (3, 224, 224)
    insert: dict[str, Any] = field(default_factory=lambda: {"block": "se", "reduction": 16})


NETWORKS = [
    Network("resnet18.se", {"source": "timm", "name": "resnet18"}),
    Network("resnet50.se", {"source": "timm", "name": "resnet50"}),
    Network("resnext50_32x4d.se", {"source": "timm", "name": "resnext50_32x4d"}),
    Network("mobilenetv2_100.se", {"source": "timm", "name": "mobilenetv2_100"}),
    Network(
        "cifar_resnet20.se",
        {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20"},
        (3, 32, 32),
    ),
]


def text(plan: Plan) -> str:
    """The table, what the stages are, and every candidate that was turned down with its reason."""
    rejected = [f"turned down: {item.reason}" for item in plan.rejected] or ["turned down: none"]
    warned = [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join([plan.table(), plan.stage_line(), *rejected, *warned]) + "\n"


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.file)
def test_se_goes_where_the_table_says(network, update_golden):
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": network.model,
            "input": {"shape": list(network.shape)},
            "surgery": [{"insert": network.insert, "at": "residual"}],
        }
    )
    found = text(pipeline.plan(spec).plan)
    golden = GOLDEN / f"{network.file}.txt"
    if update_golden:
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def test_every_golden_plan_belongs_to_a_network():
    assert {path.stem for path in GOLDEN.glob("*.se.txt")} == {network.file for network in NETWORKS}
