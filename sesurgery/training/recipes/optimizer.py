"""The optimiser by its name, over groups of weights with their own decay and their own rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sesurgery.spec.train import Optimizer


def make_optimizer(
    model: nn.Module,
    options: Optimizer,
    *,
    undecayed: Collection[str] = (),
    rates: Mapping[str, float] = MappingProxyType({}),
    fused: bool = False,
) -> torch.optim.Optimizer:
    """The optimiser over the model's parameters; norms and biases, the ones of at most one dimension, do not decay.

    Nor do those named in `undecayed`. `rates` are factors on the learning rate, by parameter. The first group has the
    highest rate. `fused` steps all weights by one kernel, for torch's own optimisers.
    """
    groups = _groups(model, options, undecayed, rates)
    given = {key: getattr(options, key) for key in ("betas", "eps") if getattr(options, key) is not None}
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr, fused=fused or None, **given)
    if options.name == "sgd":
        # torch has no Nesterov step without momentum, and the two are the same then.
        nesterov = options.nesterov and options.momentum > 0
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov, fused=fused or None)
    from timm.optim import create_optimizer_v2

    made: torch.optim.Optimizer = create_optimizer_v2(
        groups, opt=options.name, lr=options.lr, weight_decay=options.weight_decay, momentum=options.momentum, **given
    )
    return made


def _groups(
    model: nn.Module, options: Optimizer, undecayed: Collection[str], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in undecayed
            groups.setdefault((rates.get(name, 1.0), decays), []).append(parameter)
    return [
        {
            "params": groups[rate, decays],
            "weight_decay": options.weight_decay if decays else 0.0,
            **({} if rate == 1 else {"lr": options.lr * rate}),
        }
        for rate, decays in sorted(groups, reverse=True)
    ]
