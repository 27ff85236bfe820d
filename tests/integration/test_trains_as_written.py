"""A changed network trains like one that was written with its blocks: timm's seresnet18 beside resnet18 with SE."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import nn

import sesurgery

STEPS = 20


def pair() -> tuple[nn.Module, nn.Module]:
    """timm's SE-ResNet-18, and its ResNet-18 with blocks inserted; both with the same weights."""
    written = timm.create_model("seresnet18", num_classes=4)
    backbone = timm.create_model("resnet18", num_classes=4)
    inserted = sesurgery.insert(backbone, at="residual", divisor=8, example_input=torch.zeros(1, 3, 32, 32))
    # Only the blocks' keys are ours: in both, they come in the order in which the network has them.
    theirs = {key: value for key, value in written.state_dict().items() if ".se." in key}
    plain = backbone.state_dict().keys()
    own = [key for key in inserted.state_dict() if key not in plain]
    assert len(own) == len(theirs) == 32
    values = dict(zip(own, theirs.values(), strict=True)) | {key: written.state_dict()[key] for key in plain}
    inserted.load_state_dict(values)
    return written, inserted


def losses(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The loss of every step of SGD, one batch a step."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    found = []
    for batch, wanted in zip(images, labels, strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(batch), wanted)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_the_losses_of_twenty_steps_are_those_of_the_network_of_timm() -> None:
    torch.manual_seed(0)
    written, inserted = pair()
    images, labels = torch.randn(STEPS, 8, 3, 32, 32), torch.randint(0, 4, (STEPS, 8))
    expected, found = losses(written, images, labels), losses(inserted, images, labels)
    assert len(set(expected)) == STEPS
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
