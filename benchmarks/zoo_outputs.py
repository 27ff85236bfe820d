"""How the zoo compares outputs, and whether they depend on the image at all."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sesurgery.surgeons.fx.inputs import tensors

MOVES = 1e-2
"""How far another image must move the outputs, of their largest value."""


def difference(one: nn.Module, other: nn.Module, image: Tensor) -> float:
    """The largest difference of two networks' outputs, relative to the largest output of the first."""
    with torch.no_grad():
        expected, found = [*tensors(one(image))], [*tensors(other(image))]
    apart = max(float((mine - theirs).abs().max()) for mine, theirs in zip(expected, found, strict=True))
    return apart / largest(expected)


def largest(outputs: Iterable[Tensor]) -> float:
    """The largest value; no less than 1e-12, so that it can be divided by."""
    return max(1e-12, *(float(item.abs().max()) for item in outputs))


def let_through(network: nn.Module, image: Tensor, row: dict[str, Any]) -> None:
    """Fill in `moves`, and give a network whose outputs hardly depend on the image weights that let it through."""
    # On copies: a forward may keep what it computed.
    row["moves"] = _moves(copy.deepcopy(network), image)
    if row["moves"] < MOVES:
        drawn = copy.deepcopy(network)
        _scale_layers(drawn, image)
        network.load_state_dict(drawn.state_dict())
        row["moves"] = _moves(copy.deepcopy(network), image)
        row["drawn"] = True


def _moves(network: nn.Module, image: Tensor) -> float:
    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = [tuple(tensors(network(each))) for each in (image, other)]
    apart = max(float((one - two).abs().max()) for one, two in zip(*outputs, strict=True) if one.is_floating_point())
    return apart / largest(outputs[0])


def _scale_layers(network: nn.Module, image: Tensor) -> None:
    """Draw the layers' weights, and divide each layer's by the deviation of what it puts out on the image.

    Mishkin and Matas, All you need is a good init (arXiv 1511.06422), in one pass.
    """

    def scale(layer, _, output) -> object:
        deviation = float(output.std())
        if not 0 < deviation < float("inf"):
            return None
        layer.weight.data /= deviation
        if layer.bias is not None:
            layer.bias.data /= deviation
        return output / deviation

    layers = (nn.Conv2d, nn.Linear)
    hooks = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for part in network.modules():
            if isinstance(part, layers):
                nn.init.kaiming_normal_(part.weight)
                hooks.append(part.register_forward_hook(scale))
            elif isinstance(part, nn.BatchNorm2d) and part.affine:
                # Transformers draws them about zero, so that the shift drowns the image.
                part.reset_parameters()
        for name, part in network.named_parameters():
            if not part.any() and not name.endswith("bias"):
                nn.init.normal_(part, std=0.1)
        network(image)
    for hook in hooks:
        hook.remove()
