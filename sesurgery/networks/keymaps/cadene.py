"""SENets of Cadene's pretrained-models.pytorch, ported from the Caffe models of the paper, and timm's `legacy_se*`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sesurgery.networks.keymaps.base import Example, InBlock, KeyMap, Place, by_patterns

_STEM = {
    r"layer0\.conv1\.(.*)": r"conv1.\1",
    r"layer0\.bn1\.(.*)": r"bn1.\1",
}
_DEEP_STEM = {
    r"layer0\.conv1\.(.*)": r"conv1.0.\1",
    r"layer0\.bn1\.(.*)": r"conv1.1.\1",
    r"layer0\.conv2\.(.*)": r"conv1.3.\1",
    r"layer0\.bn2\.(.*)": r"conv1.4.\1",
    r"layer0\.conv3\.(.*)": r"conv1.6.\1",
    r"layer0\.bn3\.(.*)": r"bn1.\1",
}


@dataclass(frozen=True)
class Cadene(KeyMap):
    """`layer0.conv1`, `layer1.0.se_module.fc1`, `last_linear`; backbones: `sesurgery.networks.caffe_resnet`."""

    def places(self, keys: Collection[str]) -> Mapping[str, Place]:
        # SENet-154 begins with three convolutions, which timm calls by their number.
        stem = _DEEP_STEM if any(key.startswith("layer0.conv3.") for key in keys) else _STEM
        names = {**stem, r"last_linear\.(.*)": r"fc.\1"}
        return by_patterns(keys, names, {r"(.*)\.se_module\.(.*)": r"\1:\2"})


EXAMPLES = (
    Example(
        "a ResNet",
        Cadene(),
        {
            "layer0.conv1.weight": "conv1.weight",
            "layer0.bn1.running_mean": "bn1.running_mean",
            "layer1.0.conv1.weight": "layer1.0.conv1.weight",
            "layer1.0.se_module.fc2.bias": InBlock("layer1.0", "fc2.bias"),
            "layer1.0.downsample.1.bias": "layer1.0.downsample.1.bias",
            "last_linear.bias": "fc.bias",
        },
    ),
    Example(
        "the stem of SENet-154",
        Cadene(),
        {
            "layer0.conv1.weight": "conv1.0.weight",
            "layer0.conv3.weight": "conv1.6.weight",
            "layer0.bn2.weight": "conv1.4.weight",
            "layer0.bn3.weight": "bn1.weight",
        },
    ),
)
