"""timm's Efficient Channel Attention, also for maps with an axis of time; `sesurgery.blocks.eca` has the equations."""

from __future__ import annotations

from timm.layers import CecaModule, EcaModule
from torch import Tensor


class Eca(EcaModule):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, C, T, H, W] -> the same."""
        if x.dim() == 5:
            # The squeeze is a mean over all positions, whatever axes they lie on.
            return super().forward(x.flatten(2, 3)).view_as(x)  # type: ignore[no-any-return]
        return super().forward(x)  # type: ignore[no-any-return]


class Ceca(CecaModule):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, C, T, H, W] -> the same."""
        if x.dim() == 5:
            return super().forward(x.flatten(2, 3)).view_as(x)  # type: ignore[no-any-return]
        return super().forward(x)  # type: ignore[no-any-return]
