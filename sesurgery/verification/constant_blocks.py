"""A network of torch some of whose blocks scale by constants, whatever their input is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sesurgery.training.data.base import Images
from sesurgery.training.evaluation import BATCH, logits
from sesurgery.verification.folding import Answers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Images at some positions."""

    images: Images
    which: Sequence[int]

    def __len__(self) -> int:
        return len(self.which)

    def batches(self) -> Iterator[torch.Tensor]:
        """In order, as they are read."""
        return (self.images[self.which[start : start + BATCH]] for start in range(0, len(self), BATCH))


@dataclass(frozen=True)
class ConstantBlocks:
    """A network, the modules of its blocks by key, and the constant [C] that may stand for each block's gate."""

    network: nn.Module
    modules: Mapping[str, str]
    constants: Mapping[str, Floats]

    def answers(self, samples: Samples, constant: Collection[str] = ()) -> Answers:
        """The class that the network gives each sample [N] where these blocks scale by their constants."""
        with ExitStack() as stack:
            for key in constant:
                module = self.network.get_submodule(self.modules[key])
                stack.callback(module.register_forward_hook(_scaled_by(self.constants[key])).remove)
            found: Answers = logits(self.network, samples.batches()).argmax(1).numpy()
        return found


def middle(gates: Floats) -> tuple[Floats, float]:
    """The middle of each channel's range over samples [N, C], and the largest distance from it of any channel.

    A channel that is NaN, zero on every sample, stays as it is: nothing is known of its gate.
    """
    seen = np.ma.masked_invalid(gates)
    low, high = seen.min(0), seen.max(0)
    return np.ma.filled((low + high) / 2, 1.0), float((high - low).max()) / 2


def _scaled_by(constant: Floats) -> Any:
    def hook(_: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor:
        scale = torch.as_tensor(constant, dtype=made.dtype, device=made.device)
        return given[0] * scale.view(-1, *[1] * (given[0].ndim - 2))

    return hook
