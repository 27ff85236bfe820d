"""ShuffleNet: Zhang et al., arXiv 1707.01083; grouped 1 x 1 convolutions with the channels shuffled between them."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

GROUPS, WIDTHS, BLOCKS = 3, (240, 480, 960), (4, 8, 4)
"""Of the network of 3 groups that the SE paper takes (table 1 of ShuffleNet's)."""


class ShuffleUnit(nn.Module):
    """A grouped 1 x 1, a shuffle, a depthwise 3 x 3 and a grouped 1 x 1; added to its input, or joined to its pool."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        width = out_channels // 4
        made = out_channels - in_channels if stride == 2 else out_channels
        self.conv1 = nn.Conv2d(in_channels, width, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, made, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(made)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = F.channel_shuffle(out, self.groups)
        out = self.bn3(self.conv3(self.bn2(self.conv2(out))))
        if self.stride == 2:
            pooled = F.avg_pool2d(x, 3, 2, padding=1)
            return self.relu(torch.cat((pooled, out), dim=1))  # type: ignore[no-any-return]
        return self.relu(x + out)  # type: ignore[no-any-return]


class ShuffleNet(nn.Module):
    """ShuffleNet 1x with 3 groups; images [N, in_channels, 224, 224] to logits [N, num_classes]."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 24, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        channels, stages = 24, OrderedDict[str, nn.Module]()
        for number, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 2):
            # The first 1 x 1 of all has few input channels and no groups (section 3.2).
            units = [ShuffleUnit(channels, width, 2, GROUPS, 1 if number == 2 else GROUPS)]
            units += [ShuffleUnit(width, width, 1, GROUPS, GROUPS) for _ in range(blocks - 1)]
            stages[f"stage{number}"] = nn.Sequential(*units)
            channels = width
        self.stages = nn.Sequential(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.stem(x))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
