"""The ResNets for 32 x 32 images of He et al., arXiv 1512.03385 section 4.2: 6n + 2 layers, widths 16, 32, 64.

A spec names one as `source: python`, `name: sesurgery.networks.cifar_resnet:resnet20`. Children are named as in
torchvision's ResNet, so that globs over scopes carry over.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from sesurgery.diagnostics import fail
from sesurgery.networks.initial import he_normal

Shortcut = Literal["A", "B"]

WIDTHS = (16, 32, 64)


class ZeroPadShortcut(nn.Module):
    """Shortcut A: every second pixel, and zeros for the channels that the input does not have; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = (
                nn.Sequential(ZeroPadShortcut(in_channels, out_channels, stride))
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        joined: torch.Tensor = self.relu(out + identity)
        return joined


class CifarResNet(nn.Module):
    """A network of 6n + 2 layers; images [N, in_channels, H, W] to logits [N, num_classes]."""

    def __init__(self, depth: int, num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B") -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise fail("SE302", f"a CIFAR ResNet has 6n + 2 layers, not {depth}", "take 20, 32, 44, 56 or 110")
        if shortcut not in ("A", "B"):
            raise fail("SE302", f"unknown shortcut {shortcut!r}", "take 'A' (zero padding) or 'B' (1 x 1 convolution)")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _layer(WIDTHS[0], WIDTHS[0], blocks, 1, shortcut)
        self.layer2 = _layer(WIDTHS[0], WIDTHS[1], blocks, 2, shortcut)
        self.layer3 = _layer(WIDTHS[1], WIDTHS[2], blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[2], num_classes)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _layer(in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-20."""
    return CifarResNet(20, num_classes, in_channels, shortcut)


def resnet32(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-32."""
    return CifarResNet(32, num_classes, in_channels, shortcut)


def resnet44(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-44."""
    return CifarResNet(44, num_classes, in_channels, shortcut)


def resnet56(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-56."""
    return CifarResNet(56, num_classes, in_channels, shortcut)


def resnet110(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-110."""
    return CifarResNet(110, num_classes, in_channels, shortcut)
