"""ResNet-200 with pre-activation, of timm's parts: He et al., arXiv 1603.05027 section 4.2."""

from __future__ import annotations

from torch import nn


def resnetv2_200(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """A ResNet v2 of 3, 24, 36 and 3 bottlenecks; images [N, in_channels, 224, 224] to logits [N, num_classes]."""
    from timm.layers import BatchNormAct2d, create_conv2d
    from timm.models.resnetv2 import ResNetV2

    network: nn.Module = ResNetV2(
        (3, 24, 36, 3),
        num_classes=num_classes,
        in_chans=in_channels,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )
    return network
