"""Initial values of convolutions: He et al., arXiv 1502.01852 section 2.2."""

from __future__ import annotations

from torch import nn


def he_normal(network: nn.Module) -> None:
    """Draw the weights of every convolution from the normal distribution that keeps variance in the backward pass."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
