"""The ResNets of the Caffe models: He et al., arXiv 1512.03385, and the backbones of the SENets of arXiv 1709.01507.

They are torchvision's but for two things. The first 1 x 1 convolution of a bottleneck has the stride, where torchvision
has it in the 3 x 3 one (of ResNeXt both have it there). The first pooling has no padding and rounds sizes up.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

IMAGENET_50, IMAGENET_101, IMAGENET_152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)


def resnet(layers: list[int], num_classes: int = 1000, groups: int = 1, width_per_group: int = 64) -> nn.Module:
    """A network of so many bottlenecks a stage; images [N, 3, H, W] to logits [N, num_classes]."""
    network: nn.Module = ResNet(Bottleneck, layers, num_classes, groups=groups, width_per_group=width_per_group)
    network.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    if groups == 1:
        for unit in network.modules():
            if isinstance(unit, Bottleneck):
                unit.conv1.stride, unit.conv2.stride = unit.conv2.stride, unit.conv1.stride
    return network


def resnet50(num_classes: int = 1000) -> nn.Module:
    """ResNet-50."""
    return resnet(list(IMAGENET_50), num_classes)


def resnet101(num_classes: int = 1000) -> nn.Module:
    """ResNet-101."""
    return resnet(list(IMAGENET_101), num_classes)


def resnet152(num_classes: int = 1000) -> nn.Module:
    """ResNet-152."""
    return resnet(list(IMAGENET_152), num_classes)


def resnext50_32x4d(num_classes: int = 1000) -> nn.Module:
    """ResNeXt-50, 32 x 4d."""
    return resnet(list(IMAGENET_50), num_classes, groups=32, width_per_group=4)


def resnext101_32x4d(num_classes: int = 1000) -> nn.Module:
    """ResNeXt-101, 32 x 4d."""
    return resnet(list(IMAGENET_101), num_classes, groups=32, width_per_group=4)


def senet154(num_classes: int = 1000, layers: list[int] = [*IMAGENET_152]) -> nn.Module:  # noqa: B006
    """SENet-154 without its blocks: 64 groups, a stem of three convolutions, 3 x 3 projections; timm's network."""
    import timm

    network: nn.Module = timm.create_model(
        "senet154", num_classes=num_classes, layers=tuple(layers), block_args={}, drop_rate=0.2
    )
    network.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    return network
