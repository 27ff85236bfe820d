"""SE-ResNets, SE-ResNeXts, SE-PreResNets and SENet-154 of pytorchcv (imgclsmob)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sesurgery.networks.keymaps.base import Example, InBlock, KeyMap, Place, renamed

_UNIT = re.compile(r"features\.stage(\d+)\.unit(\d+)\.(.*)")
_PARTS = {
    r"body\.conv(\d)\.conv\.(.*)": r"conv\1.\2",
    r"body\.conv(\d)\.bn\.(.*)": r"bn\1.\2",
    r"identity_conv\.conv\.(.*)": r"downsample.0.\1",
    r"identity_conv\.bn\.(.*)": r"downsample.1.\1",
    # With pre-activation a convolution alone.
    r"identity_conv\.(weight)": r"downsample.\1",
}
_AROUND = {
    r"features\.init_block\.conv\.conv\.(.*)": r"conv1.\1",
    r"features\.init_block\.conv\.bn\.(.*)": r"bn1.\1",
    r"features\.init_block\.conv\.(weight)": r"conv1.\1",
    r"features\.init_block\.bn\.(.*)": r"bn1.\1",
    r"features\.init_block\.(weight)": r"conv1.\1",
    r"features\.init_block\.conv1\.conv\.(.*)": r"conv1.0.\1",
    r"features\.init_block\.conv1\.bn\.(.*)": r"conv1.1.\1",
    r"features\.init_block\.conv2\.conv\.(.*)": r"conv1.3.\1",
    r"features\.init_block\.conv2\.bn\.(.*)": r"conv1.4.\1",
    r"features\.init_block\.conv3\.conv\.(.*)": r"conv1.6.\1",
    r"features\.init_block\.conv3\.bn\.(.*)": r"bn1.\1",
    r"features\.post_activ\.bn\.(.*)": r"bn1.\1",
    r"output\.(?:fc\.)?(.*)": r"fc.\1",
}


@dataclass(frozen=True)
class Pytorchcv(KeyMap):
    """`features.stage1.unit1.body.conv1.conv`, `features.stage1.unit1.se.conv1`, `output`."""

    def places(self, keys: Collection[str]) -> Mapping[str, Place]:
        return {key: _place(key) for key in keys}


def _place(key: str) -> Place:
    if found := _UNIT.fullmatch(key):
        scope = f"layer{found[1]}.{int(found[2]) - 1}"
        if part := re.fullmatch(r"se\.(?:conv|fc)([12])\.(.*)", found[3]):
            return InBlock(scope, f"fc{part[1]}.{part[2]}")
        return f"{scope}.{renamed(found[3], _PARTS) or found[3]}"
    return renamed(key, _AROUND) or key


EXAMPLES = (
    Example(
        "a ResNet for ImageNet",
        Pytorchcv(),
        {
            "features.init_block.conv.conv.weight": "conv1.weight",
            "features.stage1.unit1.body.conv3.bn.bias": "layer1.0.bn3.bias",
            "features.stage2.unit1.identity_conv.conv.weight": "layer2.0.downsample.0.weight",
            "features.stage2.unit3.se.conv1.weight": InBlock("layer2.2", "fc1.weight"),
            "output.bias": "fc.bias",
        },
    ),
    Example(
        "a ResNet with pre-activation for CIFAR",
        Pytorchcv(),
        {
            "features.init_block.weight": "conv1.weight",
            "features.stage2.unit1.identity_conv.weight": "layer2.0.downsample.weight",
            "features.post_activ.bn.weight": "bn1.weight",
        },
    ),
)
