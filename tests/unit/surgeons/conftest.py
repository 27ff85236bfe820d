"""Surgery on a network in one line, and a record of everything about a network that surgery must not touch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.planner import Plan
from sesurgery.surgeons.fx.surgeon import FxSurgeon


def planned(model: nn.Module, shape: tuple[int, int, int], *rules: Mapping[str, Any], **rule: Any) -> Plan:
    """The plan of one rule (`insert: se`, `at: residual` unless said otherwise), or of several."""
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "timm", "name": "not built: the network is at hand"},
            "input": {"shape": list(shape)},
            "surgery": [{"insert": "se", "at": "residual", **one} for one in rules or (rule,)],
        }
    )
    return planner.plan(spec, FxSurgeon(shape).view(model))


@pytest.fixture
def plan() -> Callable[..., Plan]:
    return planned


@pytest.fixture
def operate() -> Callable[..., nn.Module]:
    """`operate(model, shape, insert=..., at=..., ...)`: the changed network; the blocks' values come from seed 0."""

    def operate(model: nn.Module, shape: tuple[int, int, int], *rules: Mapping[str, Any], **rule: Any) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return FxSurgeon(shape).apply(model, planned(model, shape, *rules, **rule))

    return operate


def everything(model: nn.Module) -> dict[str, Any]:
    """What there is to change in a network: attributes, modes, hooks, which tensor is where, and every value."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found[f"{path} is"] = (id(module), type(module), module.training)
        for name, value in vars(module).items():
            found[f"{path} has {name}"] = sorted(value) if isinstance(value, dict | set) else id(value)
    for key, value in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        found[f"{key} holds"] = (
            id(value),
            value.requires_grad,
            value.grad is None,
            hash(value.detach().numpy().tobytes()),
        )
    return found


@pytest.fixture
def untouched() -> Callable[[nn.Module], dict[str, Any]]:
    return everything
