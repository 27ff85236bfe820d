"""Efficient Channel Attention (Wang et al., arXiv 1910.03151), as timm has it.

    z = mean(x)                         [N, C]         over height and width
    s = gate(conv1d_k(z))               [N, C, 1, 1]   one kernel over neighbouring channels, no reduction
    y = x * s                           [N, C, H, W]
    k = |log2(C) / gamma + beta / gamma|, the next odd number, 3 at least

k weights in all. The channels have no order of their own: training gives them one. `padding: circular` lets the first
and the last channel be neighbours (timm's CECA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from sesurgery.blocks.base import Block, GateName, Init

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ECA(Block):
    """Efficient Channel Attention. `kernel_size` (odd) sets k itself; otherwise `gamma` and `beta` find it."""

    volumes: ClassVar[bool] = True

    kernel_size: Annotated[int, Field(gt=0, le=255)] | None = None
    gamma: Annotated[float, Field(ge=0.1, le=100)] = 2
    beta: Annotated[float, Field(ge=-100, le=100)] = 1
    padding: Literal["zeros", "circular"] = "zeros"
    gate: GateName = "sigmoid"
    init: Init = "default"

    def __post_init__(self) -> None:
        if self.kernel_size is not None and (self.gamma, self.beta) != (2, 1):
            raise ValueError("'kernel_size' is the kernel itself: gamma and beta do not go with it")

    def build(self, channels: int) -> nn.Module:
        from sesurgery.blocks.modules.eca import Ceca, Eca
        from sesurgery.blocks.modules.gates import gate_layer, zero

        size = self.kernel_size
        if size is not None and size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, found {size}")
        module = (Eca if self.padding == "zeros" else Ceca)(
            # timm derives the kernel where it is told the channels, and takes kernel_size only where it is not.
            channels if size is None else None,
            kernel_size=3 if size is None else size,
            gamma=self.gamma,
            beta=self.beta,
            gate_layer=gate_layer(self.gate, self.init),
        )
        (kernel,) = module.conv.kernel_size
        if self.padding == "circular" and kernel // 2 > channels:
            raise ValueError(f"a circular kernel of {kernel} goes more than once around {channels} channels")
        if self.init == "identity":
            zero(module.conv)
        built: nn.Module = module
        return built


EXAMPLES = (
    ECA(),
    ECA(kernel_size=5),
    ECA(gamma=1, beta=2, gate="hard_sigmoid"),
    ECA(padding="circular"),
    ECA(init="identity"),
    ECA(init="identity", padding="circular", gate="hard_sigmoid"),
)
