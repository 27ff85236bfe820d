"""The optimiser by its name, over groups of weights with their own decay and their own rate."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from sesurgery.diagnostics import fail
from sesurgery.spec.train import Optimizer


def make_optimizer(
    model: nn.Module,
    options: Optimizer,
    *,
    undecayed: Collection[str] = (),
    slow: Collection[str] = (),
    slow_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimiser over the model's parameters; norms and biases, the ones of at most one dimension, do not decay.

    Nor do those named in `undecayed`. Those named in `slow` have `slow_rate` times the learning rate. Raises SE502
    for an option that the optimiser does not take.
    """
    groups = _groups(model, options, undecayed, slow, slow_rate)
    given = {key: getattr(options, key) for key in ("betas", "eps") if getattr(options, key) is not None}
    _require(options.name, given)
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr, **given)
    if options.name == "sgd":
        # torch has no Nesterov step without momentum, and the two are the same then.
        nesterov = options.nesterov and options.momentum > 0
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov)
    from timm.optim import create_optimizer_v2

    made: torch.optim.Optimizer = create_optimizer_v2(
        groups, opt=options.name, lr=options.lr, weight_decay=options.weight_decay, momentum=options.momentum, **given
    )
    return made


def _require(name: str, given: Collection[str]) -> None:
    """Raise SE502 for an option that the optimiser does not have: timm would leave it out without a word."""
    if not given:
        return
    from timm.optim import get_optimizer_info

    info = get_optimizer_info(name)
    has = {"betas": info.has_betas and info.num_betas == 2, "eps": info.has_eps}
    for option in given:
        if not has[option]:
            raise fail("SE502", f"the optimiser {name!r} has no {option!r}", f"take `{option}:` out of `optimizer:`")


def _groups(
    model: nn.Module, options: Optimizer, undecayed: Collection[str], slow: Collection[str], slow_rate: float
) -> list[dict[str, Any]]:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in undecayed
            groups.setdefault((name in slow, decays), []).append(parameter)
    order = [(False, True), (False, False), (True, True), (True, False)]
    return [
        {
            "params": groups[is_slow, decays],
            "weight_decay": options.weight_decay if decays else 0.0,
            **({"lr": options.lr * slow_rate} if is_slow else {}),
        }
        for is_slow, decays in order
        if (is_slow, decays) in groups
    ]
