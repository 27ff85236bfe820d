"""timm's Efficient Channel Attention, also for maps with an axis of time; `sesurgery.blocks.eca` has the equations.

The squeeze is a mean over all positions, whatever axes they lie on: `volumes` lets time and height be one.
"""

from __future__ import annotations

from timm.layers import CecaModule, EcaModule
from torch import Tensor


class Eca(EcaModule):  # type: ignore[misc]
    """Zeros beside the first and the last channel."""

    volumes = False

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, C, T, H, W] -> the same."""
        if self.volumes:
            return super().forward(x.flatten(2, 3)).view_as(x)  # type: ignore[no-any-return]
        return super().forward(x)  # type: ignore[no-any-return]


class Ceca(CecaModule):  # type: ignore[misc]
    """The first and the last channel are neighbours."""

    volumes = False

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, C, T, H, W] -> the same."""
        if self.volumes:
            return super().forward(x.flatten(2, 3)).view_as(x)  # type: ignore[no-any-return]
        return super().forward(x)  # type: ignore[no-any-return]
