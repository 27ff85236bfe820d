"""What a prediction of flips promises, and a network whose blocks scale by constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import bdtr, bdtrc
from torch import nn

from sesurgery.verification.constant_blocks import ConstantBlocks, Samples, middle
from sesurgery.verification.folding import LEVEL, flipped, most, predicted, scored
from sesurgery.verification.proportions import wilson


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01, 0.03, 0.1, 0.3])
def test_a_prediction_is_exceeded_in_at_most_a_twentieth_of_all_cases(share):
    """The exact probability, over every number of flips in training and of held-out flips."""
    samples, held_out = 400, 180
    counts = np.arange(samples + 1)
    likely = np.diff(bdtr(counts, samples, share), prepend=0)
    tops = {count: most(wilson(int(count), samples)[1], held_out) for count in counts[likely > 1e-6]}
    exceeded = sum(likely[count] * bdtrc(top, held_out, share) for count, top in tops.items())
    assert exceeded <= 0.05


def test_the_most_is_the_fewest_that_is_not_exceeded():
    for share in (0.0, 0.01, 0.2, 1.0):
        top = most(share, 180)
        assert bdtr(top, 180, share) >= LEVEL
        assert top == 0 or bdtr(top - 1, 180, share) < LEVEL
    assert (most(0.0, 180), most(1.0, 180)) == (0, 180)


def test_flips_and_top1_are_counted_on_the_same_samples():
    labels = np.array([0, 1, 2, 3])
    before, after = np.array([0, 1, 2, 0]), np.array([0, 0, 2, 1])
    assert (flipped(before, after).hits, predicted(before, after, 10).flips.samples) == (2, 4)
    found = scored(before, after, labels)
    assert (found.top1, found.flips.hits) == ((0.75, 0.5), 2)
    assert found.difference.value == pytest.approx(-0.25)
    assert (found.mcnemar.first_only, found.mcnemar.second_only) == (0, 1)


class Gated(nn.Module):
    """Scales by a sigmoid of the mean."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def test_a_block_scales_by_its_constant_where_it_is_asked_to_and_by_its_gate_again_afterwards():
    network = nn.Sequential(Gated(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    constant = np.array([9.0, 0.1, 0.1])
    blocks = ConstantBlocks(network, {"se/0": "0"}, {"se/0": constant})
    samples = Samples(images, range(6))
    own = network(images).argmax(1).numpy()
    assert (blocks.answers(samples) == own).all()
    scaled = (images.mean((2, 3)) * torch.tensor(constant)).argmax(1).numpy()
    assert (blocks.answers(samples, ["se/0"]) == scaled).all()
    assert (scaled != own).any()
    assert (blocks.answers(samples) == own).all()


def test_the_constant_is_the_middle_of_the_range_and_an_unseen_channel_stays():
    gates = np.array([[0.2, np.nan, np.nan], [0.6, 0.5, np.nan]])
    constant, within = middle(gates)
    assert constant == pytest.approx([0.4, 0.5, 1.0])
    assert within == pytest.approx(0.2)
