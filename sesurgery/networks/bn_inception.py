"""BN-Inception: Ioffe and Szegedy, arXiv 1502.03167, figure 5; GoogLeNet with norms and pairs of 3 x 3 convolutions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Pool = Literal["avg", "max"]


class ConvNormReLU(nn.Sequential):
    """A convolution, its norm and a ReLU; padded so that stride 1 keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class Inception(nn.Module):
    """Four branches, joined: 1 x 1; 1 x 1 and 3 x 3; 1 x 1 and twice 3 x 3; a pool and 1 x 1.

    Widths are those of the branches, in that order: `ones`, (`reduce3`, `three`), (`reduce5`, `five`), `pooled`.
    """

    def __init__(
        self, in_channels: int, ones: int, three: tuple[int, int], five: tuple[int, int], pool: Pool, pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = ConvNormReLU(in_channels, ones, 1)
        self.branch2 = nn.Sequential(ConvNormReLU(in_channels, three[0], 1), ConvNormReLU(*three, 3))
        self.branch3 = nn.Sequential(
            ConvNormReLU(in_channels, five[0], 1), ConvNormReLU(*five, 3), ConvNormReLU(five[1], five[1], 3)
        )
        pooling = nn.AvgPool2d(3, 1, padding=1) if pool == "avg" else nn.MaxPool2d(3, 1, padding=1)
        self.branch4 = nn.Sequential(pooling, ConvNormReLU(in_channels, pooled, 1))
        self.out_channels = ones + three[1] + five[1] + pooled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), dim=1)


class Reduction(nn.Module):
    """Half the size: a strided 3 x 3 branch, a strided pair of 3 x 3, and a pool, joined."""

    def __init__(self, in_channels: int, three: tuple[int, int], five: tuple[int, int]) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(ConvNormReLU(in_channels, three[0], 1), ConvNormReLU(*three, 3, 2))
        self.branch2 = nn.Sequential(
            ConvNormReLU(in_channels, five[0], 1), ConvNormReLU(*five, 3), ConvNormReLU(five[1], five[1], 3, 2)
        )
        self.branch3 = nn.MaxPool2d(3, 2, padding=1)
        self.out_channels = three[1] + five[1] + in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x)), dim=1)


class BnInception(nn.Module):
    """Images [N, in_channels, 224, 224] to logits [N, num_classes]."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormReLU(in_channels, 64, 7, 2),
            nn.MaxPool2d(3, 2, padding=1),
            ConvNormReLU(64, 64, 1),
            ConvNormReLU(64, 192, 3),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.inception3a = Inception(192, 64, (64, 64), (64, 96), "avg", 32)
        self.inception3b = Inception(256, 64, (64, 96), (64, 96), "avg", 64)
        self.inception3c = Reduction(320, (128, 160), (64, 96))
        self.inception4a = Inception(576, 224, (64, 96), (96, 128), "avg", 128)
        self.inception4b = Inception(576, 192, (96, 128), (96, 128), "avg", 128)
        self.inception4c = Inception(576, 160, (128, 160), (128, 160), "avg", 128)
        self.inception4d = Inception(608, 96, (128, 192), (160, 192), "avg", 128)
        self.inception4e = Reduction(608, (128, 192), (192, 256))
        self.inception5a = Inception(1056, 352, (192, 320), (160, 224), "avg", 128)
        self.inception5b = Inception(1024, 352, (192, 320), (192, 224), "max", 128)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inception3c(self.inception3b(self.inception3a(self.stem(x))))
        x = self.inception4d(self.inception4c(self.inception4b(self.inception4a(x))))
        x = self.inception5b(self.inception5a(self.inception4e(x)))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
