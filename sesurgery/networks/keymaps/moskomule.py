"""Networks of moskomule's senet.pytorch, those of its `torch.hub` entry among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sesurgery.networks.keymaps.base import Example, InBlock, KeyMap, Place, by_patterns


@dataclass(frozen=True)
class Moskomule(KeyMap):
    """torchvision's names, and `layer1.0.se.fc.0`, `layer1.0.se.fc.2`: linear layers without biases."""

    def places(self, keys: Collection[str]) -> Mapping[str, Place]:
        blocks = {r"(.*)\.se\.fc\.0\.(.*)": r"\1:fc1.\2", r"(.*)\.se\.fc\.2\.(.*)": r"\1:fc2.\2"}
        return by_patterns(keys, {}, blocks)


EXAMPLES = (
    Example(
        "an SE-ResNet",
        Moskomule(),
        {
            "layer1.0.bn2.weight": "layer1.0.bn2.weight",
            "layer1.0.se.fc.0.weight": InBlock("layer1.0", "fc1.weight"),
            "layer1.0.se.fc.2.weight": InBlock("layer1.0", "fc2.weight"),
        },
    ),
)
