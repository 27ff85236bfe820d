"""After each convolution unit: convolution, norm, activation. For plain networks such as VGG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView, is_one_pixel
from sesurgery.graph.idioms import conv_units, gives_the_output
from sesurgery.placements.base import Example, Match, Miss, Placement
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Conv(Placement):
    """After every convolution with its norm and activation; `spatial_only` skips 1 x 1 convolutions."""

    spatial_only: bool = False

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        for unit in conv_units(graph):
            where = unit.conv.scope or unit.conv.name
            shape = unit.end.shape
            if shape is None or is_one_pixel(shape):
                size = "x".join("1" for _ in (shape or (1, 1, 1))[1:])
                yield Miss("one_position", where, f"its map is {size}: there is nothing to squeeze")
            elif self.spatial_only and unit.conv.conv and max(unit.conv.conv.kernel) == 1:
                yield Miss("pointwise", where, "it is a 1 x 1 convolution")
            elif unit.act is None and gives_the_output(graph, unit.end):
                # With its norm or without: in an exported file that is folded into it.
                yield Miss(
                    "network_output", where, "it gives the network's output: its channels are answers, not features"
                )
            elif not unit.end.readings:
                yield Miss("unread", where, "nothing reads it")
            else:
                yield Match(unit.end, unit.end.uses, unit.conv.scope)


_VGG = """
x = input() : 3x8x8
conv1 = conv(x) [3x3 s1 p1 3->16] @features.0 : 16x8x8
relu1 = act(conv1) @features.1 : 16x8x8
pool = pool(relu1) @features.2 : 16x4x4
conv2 = conv(pool) [3x3 s1 p1 16->32] @features.3 : 32x4x4
bn2 = norm(conv2) @features.4 : 32x4x4
relu2 = act(bn2) @features.5 : 32x4x4
squeeze = global_pool(relu2) @avgpool : 32x1x1
head = conv(squeeze) [1x1 s1 p0 32->10] @head : 10x1x1
out = output(head)
"""

EXAMPLES = (
    Example(
        "a plain network: after the activation, with or without a norm",
        Conv(),
        _VGG,
        {"relu1": ("pool",), "relu2": ("squeeze",)},
        ("nothing to squeeze",),
    ),
    Example(
        "an activation that is spelled out",
        Conv(),
        """
        x = input() : 3x8x8
        conv = conv(x) [3x3 s1 p1 3->16] @conv : 16x8x8
        bn = norm(conv) @bn : 16x8x8
        curve = act(bn) @act : 16x8x8
        swish = mul(bn, curve) @act : 16x8x8
        next = conv(swish) [1x1 s1 p0 16->8] @next : 8x8x8
        gap = global_pool(next) @gap : 8x1x1
        fc = linear(gap) @fc
        """,
        {"swish": ("next",), "next": ("gap",)},
    ),
    Example(
        "spatial convolutions alone",
        Conv(spatial_only=True),
        units.BOTTLENECK,
        {"act2": ("conv3",)},
        ("1 x 1", "1 x 1", "1 x 1"),
    ),
)
