"""The attention modules of timm (`timm.layers.create_attn`) by timm's own names and keyword arguments.

    se       Squeeze-and-Excitation, arXiv 1709.01507       coord    coordinate attention, arXiv 2103.02907
    ese      effective SE, arXiv 1911.06667                 scoord   timm's simpler form of it
    eca      efficient channel attention, arXiv 1910.03151  ela      efficient local attention, arXiv 2403.01123
    ecam     eca with an mlp (timm's experiment)            strip    timm's strip attention
    ceca     eca with circular padding                      sk       selective kernel, arXiv 1903.06586
    ge       gather-excite, arXiv 1810.12348                splat    split attention, arXiv 2004.08955
    gc, gca  global context, scaled or added, 1904.11492    nl       non-local, arXiv 1711.07971
    cbam     arXiv 1807.06521                               lambda   lambda layer, arXiv 2102.08602
    lcbam    timm's lighter form of it

sk, splat and lambda are not gates: what they return replaces the map. timm's bottleneck, halo and bat are left out:
they work at one size of map, or at multiples of one, only. The blocks eca, effective_se, cbam and gather_excite are
front names for some of these, with typed options.

nl starts as the identity, as its last norm starts at zero, and gca's last projection starts at zero: what comes before
them learns from the second step on. The biases conv_attn of gc and gca, and p, g and z of nl, stand before a softmax or
a batch norm that takes them out again: they never learn.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sesurgery.blocks.base import Block
from sesurgery.diagnostics import suggest

if TYPE_CHECKING:
    from torch import nn

Name = Literal[
    "se", "ese", "eca", "ecam", "ceca", "ge", "gc", "gca", "cbam", "lcbam",
    "coord", "scoord", "ela", "strip", "sk", "splat", "nl", "lambda",
]  # fmt: skip

# Not the spec's to say, or not shape-preserving.
_WITHHELD = {"device", "dtype", "stride", "out_channels", "dim_out", "feat_size"}
_DERIVES_KERNEL = ("eca", "ecam", "ceca")


@dataclass(frozen=True)
class Timm(Block):
    """`{block: timm, name: gc, kwargs: {rd_ratio: 0.25}}`: called as timm calls it, `create_attn(name, channels, ...)`.

    A string for `act_layer`, `gate_layer` or `norm_layer` is one of timm's names for such layers.
    """

    name: Name
    kwargs: dict[str, bool | int | float | str | None] = field(default_factory=dict)

    def build(self, channels: int) -> nn.Module:
        import timm
        from timm.layers import create_attn, get_attn
        from torch import nn

        try:
            options = _options(get_attn(self.name))
        except AssertionError as error:
            raise ValueError(f"timm {timm.__version__} has no attention module {self.name!r}") from error
        for key in self.kwargs:
            if key not in options:
                raise ValueError(f"timm's {self.name!r} has no option {key!r}: {suggest(key, options)}")
        if "kernel_size" in self.kwargs and self.name in _DERIVES_KERNEL:
            raise ValueError(
                f"timm's {self.name!r} finds its kernel_size from the channels: take the block eca to set it"
            )
        layers = _layers(self.kwargs)
        try:
            module = create_attn(self.name, channels, **layers)
        except (AssertionError, TypeError) as error:
            why = str(error) or "the options do not fit the width"
            raise ValueError(f"timm {timm.__version__} cannot build {self.name!r}: {why}{self._way_out()}") from error
        if not isinstance(module, nn.Module):
            raise ValueError(f"timm {timm.__version__} made no module of {self.name!r}")
        return module

    def _way_out(self) -> str:
        # timm hands the sub-layers of ge wrong arguments (in 1.0.31 still): only its parameter-free form is built.
        stuck = self.name == "ge" and (self.kwargs.get("use_mlp", True) or self.kwargs.get("extra_params"))
        return "; take the block gather_excite, or 'use_mlp: false'" if stuck else ""


def _options(factory: Any) -> set[str]:
    """The keyword arguments of a module's class; some swallow unknown ones, so their signatures are read."""
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    return {part.name for part in parameters if part.kind is not inspect.Parameter.VAR_KEYWORD} - _WITHHELD


def _layers(kwargs: Mapping[str, object]) -> dict[str, object]:
    """The arguments with layers in the place of their names: not every module of timm takes names."""
    from timm.layers import get_act_layer, get_norm_layer

    finders = {"act_layer": get_act_layer, "gate_layer": get_act_layer, "norm_layer": get_norm_layer}
    found = dict(kwargs)
    for key, find in finders.items():
        if isinstance(name := kwargs.get(key), str):
            try:
                found[key] = find(name)
            except (AssertionError, KeyError) as error:
                raise ValueError(f"timm knows no {key} {name!r}") from error
    return found


EXAMPLES = (
    Timm("se", {"rd_ratio": 0.25, "rd_divisor": 1}),
    Timm("ese"),
    Timm("eca", {"gate_layer": "hard_sigmoid"}),
    Timm("ecam"),
    Timm("ceca"),
    Timm("ge", {"use_mlp": False, "extent": 4}),
    Timm("gc"),
    Timm("gca"),
    Timm("cbam", {"act_layer": "silu"}),
    Timm("lcbam"),
    Timm("coord", {"norm_layer": "groupnorm1"}),
    Timm("scoord"),
    Timm("ela"),
    Timm("strip", {"has_skip": True}),
    Timm("sk"),
    Timm("splat"),
    Timm("nl"),
    Timm("lambda"),
)
