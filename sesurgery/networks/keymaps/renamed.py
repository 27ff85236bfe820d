"""A layout of your own, by regular expressions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sesurgery.networks.keymaps.base import Example, InBlock, KeyMap, Place, by_patterns
from sesurgery.spec.patterns import require_pattern


@dataclass(frozen=True)
class Renamed(KeyMap):
    r"""Regular expressions over whole keys and what stands for them, with `\1` for what the first group matched."""

    names: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, patterns in (("names", self.names), ("blocks", self.blocks)):
            for pattern in patterns:
                require_pattern(pattern, option, pattern)

    def places(self, keys: Collection[str]) -> Mapping[str, Place]:
        return by_patterns(keys, self.names, self.blocks)


EXAMPLES = (
    Example(
        "blocks in a Sequential behind the layer that they follow",
        Renamed(
            names={r"(layer\d\.\d+\.bn3)\.0\.(.*)": r"\1.\2"},
            blocks={r"(layer\d\.\d+)\.bn3\.1\.fc\.0\.(.*)": r"\1:fc1.\2"},
        ),
        {
            "layer1.0.bn3.0.weight": "layer1.0.bn3.weight",
            "layer1.0.bn3.1.fc.0.weight": InBlock("layer1.0", "fc1.weight"),
            "fc.weight": "fc.weight",
        },
    ),
)
