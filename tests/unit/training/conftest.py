"""A data set and a network small enough to train in a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sesurgery.spec.plugins import Catalogs
from sesurgery.spec.train import Train
from sesurgery.training.data import DATASETS
from sesurgery.training.data.base import Data, Split


def quadrants(samples: int, seed: int) -> Split:
    """Noise with one bright quarter; which quarter is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (samples,), generator=generator)
    images = torch.randn(samples, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 1.5
    return Split(images, labels)


@pytest.fixture(scope="session")
def data() -> Data:
    return Data(quadrants(96, 0), quadrants(50, 1), ("nw", "ne", "sw", "se"), "made for the tests")


@pytest.fixture
def make_net() -> Callable[..., nn.Module]:
    """A convolution, a norm, dropout and a linear layer, the same weights each time."""

    def make(width: int = 4, classes: int = 4) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Conv2d(1, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Dropout(0.1),
                nn.Linear(4 * width, classes),
            )

    return make


@pytest.fixture
def make_recipe() -> Callable[..., Train]:
    """A recipe of three epochs of six steps; keywords override."""

    def make(**options: object) -> Train:
        given = {"epochs": 3, "batch_size": 16, "threads": 1, **options}
        return Train.model_validate(given, context=Catalogs(DATASETS, DATASETS, DATASETS, DATASETS))

    return make
