"""timm's own ResNets with SE: `seresnet50`, `seresnext50_32x4d`, `senet154` and their like."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sesurgery.networks.keymaps.base import Example, InBlock, KeyMap, Place, by_patterns


@dataclass(frozen=True)
class Timm(KeyMap):
    """The names of the plain network, and `layer1.0.se.fc1`; widths are rounded: `insert: {block: se, divisor: 8}`."""

    def places(self, keys: Collection[str]) -> Mapping[str, Place]:
        return by_patterns(keys, {}, {r"(.*)\.se\.(fc[12]\..*)": r"\1:\2"})


EXAMPLES = (
    Example(
        "an SE-ResNet",
        Timm(),
        {
            "layer1.0.conv1.weight": "layer1.0.conv1.weight",
            "layer1.0.se.fc1.bias": InBlock("layer1.0", "fc1.bias"),
        },
    ),
)
