"""Concurrent spatial and channel Squeeze-and-Excitation (Roy et al., arXiv 1803.02579).

    c = gate(W2 relu(W1 mean(x)))       [N, C, 1, 1]   channel excitation (cSE), through a hidden width of C / r
    s = gate(w x)                       [N, 1, H, W]   spatial excitation (sSE), a 1 x 1 convolution to one channel
    y = x * c + x * s                   [N, C, H, W]   `combine: add`, as in the paper
    y = max(x * c, x * s)               [N, C, H, W]   `combine: max`, from the longer version, arXiv 1808.08127

The paper takes r = 2. With `init: identity` both projections before a gate start at zero, where a gate is one half:
the sum of two halves is the identity, and for the maximum the gates are doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sesurgery import deferred
from sesurgery.blocks.base import Block, GateName, Init, bottleneck_advice
from sesurgery.spec.bounds import Size

if TYPE_CHECKING:
    from torch import nn

    from sesurgery.blocks.modules.scse import SCSEModule as SCSEModule

Combine = Literal["add", "max"]

deferred.names(__name__, {"SCSEModule": "sesurgery.blocks.modules.scse"})


@dataclass(frozen=True)
class SCSE(Block):
    """Spatial and channel Squeeze-and-Excitation side by side.

    The hidden width of the channel part is channels / reduction rounded down, and at least `min_width`.
    """

    reduction: Annotated[float, Field(ge=0.0625, le=65536)] = 2
    min_width: Size = 1
    combine: Combine = "add"
    bias: bool = False
    gate: GateName = "sigmoid"
    init: Init = "default"

    def hidden(self, channels: int) -> int:
        """The hidden width for that many channels."""
        return max(self.min_width, int(channels / self.reduction))

    def build(self, channels: int) -> nn.Module:
        from sesurgery.blocks.modules.gates import gate_layer, zero
        from sesurgery.blocks.modules.scse import SCSEModule

        # The sum of two gates at one half is one already.
        gate = gate_layer(self.gate, "default" if self.combine == "add" else self.init)
        module = SCSEModule(channels, self.hidden(channels), self.bias, self.combine, gate())
        if self.init == "identity":
            zero(module.fc2, module.conv)
        return module

    def advice(self, channels: int) -> str | None:
        return bottleneck_advice(self.hidden(channels), channels)


EXAMPLES = (
    SCSE(),
    SCSE(combine="max", reduction=16, min_width=8, bias=True),
    SCSE(gate="hard_sigmoid"),
    SCSE(init="identity"),
    SCSE(init="identity", combine="max", bias=True),
)
