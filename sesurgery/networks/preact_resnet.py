"""Pre-activation ResNets for 32 x 32 images: He et al., arXiv 1603.05027, and wide ones, arXiv 1605.07146.

A norm and a ReLU stand before every convolution, and nothing stands between two sums but the branches. Children are
named as in torchvision's ResNet, so that globs over scopes carry over.
"""

from __future__ import annotations

import torch
from torch import nn

from sesurgery.diagnostics import fail
from sesurgery.networks.initial import he_normal

WIDTHS = (16, 32, 64)


class PreactBasicBlock(nn.Module):
    """Two 3 x 3 convolutions behind norms and ReLUs; where it widens, the shortcut starts behind the first ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(x))
        identity = x if self.downsample is None else self.downsample(out)
        out = self.conv1(out)
        out = self.conv2(self.relu(self.bn2(out)))
        joined: torch.Tensor = out + identity
        return joined


class PreactBottleneck(nn.Module):
    """A 1 x 1, a 3 x 3 and a 1 x 1 convolution that widens by 4, each behind a norm and a ReLU."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.downsample = _projection(in_channels, width * self.expansion, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(x))
        identity = x if self.downsample is None else self.downsample(out)
        out = self.conv1(out)
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        joined: torch.Tensor = out + identity
        return joined


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


class PreactResNet(nn.Module):
    """Three stages of so many blocks; images [N, in_channels, H, W] to logits [N, num_classes]."""

    def __init__(
        self,
        block: type[PreactBasicBlock | PreactBottleneck],
        blocks: int,
        width: int = 1,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if blocks < 1 or width < 1:
            text = f"a network of {blocks} blocks a stage, {width} times as wide"
            raise fail("SE302", text, "take at least 1 of each")
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        channels, layers = WIDTHS[0], []
        for base in WIDTHS:
            units = []
            for index in range(blocks):
                units.append(block(channels, base * width, 2 if base > WIDTHS[0] and index == 0 else 1))
                channels = base * width * block.expansion
            layers.append(nn.Sequential(*units))
        self.layer1, self.layer2, self.layer3 = layers
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.avgpool(self.relu(self.bn1(x)))
        logits: torch.Tensor = self.fc(torch.flatten(x, 1))
        return logits


def resnet110(num_classes: int = 10, in_channels: int = 3) -> PreactResNet:
    """ResNet-110 with pre-activation: 6n + 2 layers."""
    return PreactResNet(PreactBasicBlock, 18, 1, num_classes, in_channels)


def resnet164(num_classes: int = 10, in_channels: int = 3) -> PreactResNet:
    """ResNet-164: 9n + 2 layers in bottlenecks."""
    return PreactResNet(PreactBottleneck, 18, 1, num_classes, in_channels)


def wide_resnet16_8(num_classes: int = 10, in_channels: int = 3) -> PreactResNet:
    """WRN-16-8: 6n + 4 layers, 8 times as wide."""
    return PreactResNet(PreactBasicBlock, 2, 8, num_classes, in_channels)
