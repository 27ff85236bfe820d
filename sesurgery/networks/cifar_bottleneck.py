"""Networks of bottlenecks for small images: ResNeXt-29 (arXiv 1611.05431 section 5.3), and ResNet-46.

Children are named as in torchvision's ResNet, whose blocks these are.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sesurgery.networks.initial import he_normal


class _Stages(nn.Module):
    """A stem, stages `layer1` to `layer3`, a mean over each map and a classifier."""

    def __init__(self, stem: nn.Sequential, stages: list[nn.Sequential], channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    planes: int,
    blocks: int,
    stride: int,
    groups: int = 1,
    base_width: int = 64,
) -> nn.Sequential:
    out_channels = planes * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
    first = block(in_channels, planes, stride, downsample, groups, base_width)
    rest = (block(out_channels, planes, 1, None, groups, base_width) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def resnext29_8x64d(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNeXt-29, 8 x 64d: three stages of three bottlenecks, each of 8 groups of 64 channels in the first stage.

    Images [N, in_channels, 32, 32] to logits [N, num_classes].
    """
    stem = nn.Sequential(nn.Conv2d(in_channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    channels, stages = 64, []
    for planes in (64, 128, 256):
        stages.append(_stage(Bottleneck, channels, planes, 3, 1 if planes == 64 else 2, groups=8, base_width=64))
        channels = planes * Bottleneck.expansion
    return _Stages(stem, stages, channels, num_classes)


def resnet46(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-46: 4 and 6 basic blocks of 64 and 128 channels, 8 bottlenecks of 1,024, behind the stem of ResNet.

    Images [N, in_channels, 32, 32] or larger to logits [N, num_classes].
    """
    stem = nn.Sequential(
        nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
    )
    stages = [
        _stage(BasicBlock, 64, 64, 4, 1),
        _stage(BasicBlock, 64, 128, 6, 2),
        _stage(Bottleneck, 128, 256, 8, 2),
    ]
    return _Stages(stem, stages, 256 * Bottleneck.expansion, num_classes)
