"""Sites that no expert would choose are turned down with the reason; down-and-up attention is a unit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fixtures.surgery import rules
from torch import Tensor, nn

from sesurgery import planner
from sesurgery.diagnostics import SpecError
from sesurgery.graph import GraphView
from sesurgery.graph.residual import NotResidual, ResidualAdd, residual_adds
from sesurgery.networks.export import convert
from sesurgery.spec.export import Export
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

NETWORK = """
x = input() : 3x8x8
conv1 = conv(x) [3x3 s1 p1 3->16] @conv1 : 16x8x8
act1 = act(conv1) @act1 : 16x8x8
one = conv(act1) [1x1 s1 p0 16->1] @one : 1x8x8
mask = act(one) @mask : 1x8x8
masked = mul(act1, mask) : 16x8x8
pool = global_pool(masked) @pool : 16x1x1
a = reshape(pool) : 16x1x1
b = reshape(pool) : 16x1x1
joined = concat(a, b) : 32x1x1
scaled = other(joined, masked) : 16x8x8
head = conv(scaled) [1x1 s1 p0 16->4] @head : 4x8x8
up = other(head) : 4x16x16
out = output(up)
"""


def planned(at: object) -> planner.Plan:
    rule = {"insert": {"block": "se", "min_width": 1}, "at": at}
    return planner.plan(rules(rule), GraphView.parse(NETWORK))


def test_one_channel_and_the_networks_output_are_turned_down():
    plan = planned("conv")
    assert [site.scope for site in plan.sites] == ["conv1"]
    assert {item.reason.where: item.reason.text.partition(":")[0] for item in plan.rejected} == {
        "one": "its map has only one channel; name it with 'at",
        "head": "it gives the network's output",
    }


def test_a_vector_that_was_pooled_from_a_map_is_turned_down():
    with pytest.raises(SpecError, match="it is a pooled vector: there is nothing to squeeze"):
        planned("concat")


@pytest.mark.parametrize("name", ["one", "joined", "head"])
def test_whoever_names_a_value_gets_it(name):
    assert [site.value for site in planned({"placement": "tensor", "name": name}).sites] == [name]


SHAPE = (3, 8, 8)
VIEWS: dict[str, Callable[[nn.Module], GraphView]] = {
    "torch": lambda network: FxSurgeon(SHAPE).view(network.eval()),
    "onnx": lambda network: OnnxSurgeon(SHAPE).view(convert(network, SHAPE, Export())),
}
in_both_forms = pytest.mark.parametrize("form", VIEWS)


class Detecting(nn.Module):
    """Two levels, each with a convolution for boxes (four sides of as many bins each) and one for scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.boxes = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))
        self.scores = nn.ModuleList(nn.Conv2d(8, 3, 1) for _ in range(2))

    def levels(self, x: Tensor) -> list[Tensor]:
        first = self.stem(x).relu()
        return [first, self.down(first).relu()]


class Raw(Detecting):
    """A map of answers for every level, then all of them in a row, as in earlier YOLOs."""

    def forward(self, x: Tensor) -> Tensor:
        found = zip(self.levels(x), self.boxes, self.scores, strict=True)
        maps = [torch.cat((boxes(level), scores(level)), 1) for level, boxes, scores in found]
        return torch.cat([each.flatten(2) for each in maps], 2)


class Decoded(Detecting):
    """Boxes from the means of the sides' distributions, scores from a sigmoid, as in YOLO's Detect."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(4, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.levels(x)
        boxes = torch.cat([layer(level).flatten(2) for layer, level in zip(self.boxes, levels, strict=True)], 2)
        scores = torch.cat([layer(level).flatten(2) for layer, level in zip(self.scores, levels, strict=True)], 2)
        batch, _, places = boxes.shape
        sides = self.mean(boxes.view(batch, 4, 4, places).transpose(2, 1).softmax(1)).view(batch, 4, places)
        anchors = torch.arange(places).type_as(levels[0])
        near, far = anchors - sides[:, :2], anchors + sides[:, 2:]
        return torch.cat(((near + far) / 2, far - near, scores.sigmoid()), 1)


@in_both_forms
@pytest.mark.parametrize("network", [Raw, Decoded])
def test_answers_that_are_concatenated_on_their_way_to_the_output_are_turned_down(network, form):
    plan = planner.plan(rules({"insert": {"block": "se", "min_width": 1}, "at": "conv"}), VIEWS[form](network()))
    assert [site.scope for site in plan.sites] == ["stem", "down"]
    turned_down = {item.reason.where for item in plan.rejected if item.reason.kind == "network_output"}
    assert turned_down == {"boxes.0", "boxes.1", "scores.0", "scores.1"}


FEATURES = {
    "a layer reads the concatenation": """
        a = conv(x) [3x3 s1 p1 8->8] @a : 8x8x8
        b = conv(x) [1x1 s1 p0 8->8] @b : 8x8x8
        joined = concat(a, b) : 16x8x8
        norm = norm(joined) : 16x8x8
        out = output(norm)
        """,
    "a dense unit": """
        a = conv(x) [3x3 s1 p1 8->8] @a : 8x8x8
        b = conv(a) [3x3 s1 p1 8->8] @b : 8x8x8
        joined = concat(a, b) : 16x8x8
        out = output(joined)
        """,
    "a skip connection": """
        a = conv(x) [3x3 s1 p1 8->8] @a : 8x8x8
        b = conv(x) [3x3 s1 p1 8->8] @b : 8x8x8
        act = act(a) : 8x8x8
        joined = concat(act, b) : 16x8x8
        out = output(joined)
        """,
    "a sum with another value": """
        a = conv(x) [3x3 s1 p1 8->4] @a : 4x8x8
        b = conv(x) [3x3 s1 p1 8->4] @b : 4x8x8
        joined = concat(a, b) : 8x8x8
        sum = add(x, joined) : 8x8x8
        out = output(sum)
        """,
}


@pytest.mark.parametrize("text", FEATURES.values(), ids=[*FEATURES])
def test_features_that_are_concatenated_keep_their_sites(text):
    view = GraphView.parse(f"x = input() : 8x8x8\n{text}")
    plan = planner.plan(rules({"insert": {"block": "se", "min_width": 1}, "at": "conv"}), view)
    assert [site.scope for site in plan.sites] == ["a", "b"]


class OnePixel(nn.Module):
    """A residual unit on a map of one pixel, which a convolution or a pool makes."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.stem, self.end = nn.Conv2d(3, 8, 3, stride=2, padding=1), end
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.end(self.stem(x).relu())
        return (x + self.b(self.a(x).relu())).relu().flatten(1)


@in_both_forms
def test_a_residual_unit_on_a_map_that_is_one_pixel_at_this_size_keeps_its_site(form):
    """The input may be small because it is an example: at a larger one the same unit has a map."""
    view = VIEWS[form](OnePixel(nn.Conv2d(8, 8, 4, stride=4)))
    (site,) = planner.plan(rules({"insert": {"block": "se", "min_width": 1}, "at": "residual"}), view).sites
    assert (site.shape, site.channels) == ((8, 1, 1), 8)
    plan = planner.plan(rules({"insert": {"block": "se", "min_width": 1}, "at": "conv"}), view)
    assert {item.reason.where: item.reason.kind for item in plan.rejected} == dict.fromkeys(
        ("end", "a", "b"), "one_position"
    )


@in_both_forms
def test_a_residual_unit_on_a_vector_that_a_pool_made_is_turned_down(form):
    view = VIEWS[form](OnePixel(nn.AdaptiveAvgPool2d(1)))
    with pytest.raises(SpecError, match="it is a pooled vector: there is nothing to squeeze"):
        planner.plan(rules({"insert": {"block": "se", "min_width": 1}, "at": "residual"}), view)


ATTENTION_IN_THE_BRANCH = """
x = input() : 16x8x8
conv1 = conv(x) [1x1 s1 p0 16->16] @conv1 : 16x8x8
conv2 = conv(conv1) [3x3 s1 p1 16->16] @conv2 : 16x8x8
down = pool(conv1) : 16x4x4
low = conv(down) [3x3 s1 p1 16->16] @low : 16x4x4
up = other(low) : 16x8x8
gate = act(up) : 16x8x8
scaled = mul(conv2, gate) : 16x8x8
conv3 = conv(scaled) [1x1 s1 p0 16->16] @conv3 : 16x8x8
add = add(conv3, x) : 16x8x8
"""


def test_attention_that_goes_down_and_comes_back_does_not_make_a_skip_connection_of_a_unit():
    (found,) = residual_adds(GraphView.parse(ATTENTION_IN_THE_BRANCH))
    assert isinstance(found, ResidualAdd)
    assert found.branch[0].name == "conv3"


def test_a_branch_that_goes_down_itself_is_a_skip_connection():
    text = ATTENTION_IN_THE_BRANCH.replace("scaled = mul(conv2, gate)", "scaled = add(conv2, gate)")
    assert "a skip connection" in next(
        item.why
        for item in residual_adds(GraphView.parse(text))
        if isinstance(item, NotResidual) and item.add.name == "add"
    )


def test_a_branch_that_goes_down_to_one_pixel_and_is_interpolated_is_a_skip_connection():
    """As in SCNet-50's last stage, whose calibration pools 7 x 7 by four."""
    view = GraphView.parse("""
    x = input() : 16x7x7
    down = pool(x) : 16x1x1
    conv = conv(down) [3x3 s1 p1 16->16] @k2 : 16x1x1
    up = other(conv) : 16x7x7
    add = add(x, up) : 16x7x7
    gate = act(add) : 16x7x7
    """)
    (found,) = residual_adds(view)
    assert isinstance(found, NotResidual)
    assert found.why == "its deeper input goes down to 1x1 and comes back: a skip connection, not a residual unit"


def test_a_squeeze_that_gates_the_branch_does_not_make_a_skip_connection_of_a_unit():
    view = GraphView.parse("""
    x = input() : 16x8x8
    conv = conv(x) [3x3 s1 p1 16->16] @conv : 16x8x8
    pool = global_pool(conv) : 16x1x1
    fc = conv(pool) [1x1 s1 p0 16->16] @fc : 16x1x1
    gate = act(fc) : 16x1x1
    wide = other(gate) : 16x8x8
    scaled = mul(conv, wide) : 16x8x8
    add = add(x, scaled) : 16x8x8
    """)
    (found,) = residual_adds(view)
    assert isinstance(found, ResidualAdd)


def test_attention_and_its_position_code_are_no_residual_unit():
    view = GraphView.parse("""
    x = input() : 16x8x8
    qkv = conv(x) [1x1 s1 p0 16->48] @qkv : 48x8x8
    v = other(qkv) : 16x8x8
    q = reshape(qkv)
    k = reshape(qkv)
    w = other(q, k)
    vs = reshape(v)
    mixed = other(vs, w)
    map = reshape(mixed) : 16x8x8
    pe = conv(v) [3x3 s1 p1 g16 16->16] @pe : 16x8x8
    add = add(map, pe) : 16x8x8
    """)
    (found,) = residual_adds(view)
    assert isinstance(found, NotResidual)
    assert found.why == "its shallower input is attention over the map, and the deeper one its position encoding"


def test_attention_with_heads_and_its_position_code_are_no_residual_unit():
    # Values of (heads, depth, positions) have as many dimensions as a map.
    view = GraphView.parse("""
    x = input() : 127x7x8
    qkv = conv(x) [1x1 s1 p0 128->256] @qkv : 256x7x7
    heads = reshape(qkv) : 2x128x64
    q = other(heads) : 2x32x49
    k = other(heads) : 2x32x49
    v = other(heads) : 2x64x49
    vs = reshape(v) : 127x7x8
    w = other(q, k) : 2x49x49
    mixed = other(v, w) : 2x64x49
    map = reshape(mixed) : 127x7x8
    pe = conv(vs) [3x3 s1 p1 g128 128->128] @pe : 127x7x8
    add = add(map, pe) : 127x7x8
    """)
    (found,) = residual_adds(view)
    assert isinstance(found, NotResidual)
    assert found.kind == "position_code"


FOCAL_LEVELS = """
    x = input() : 16x8x8
    f = conv(x) [1x1 s1 p0 16->34] @f : 34x8x8
    context = other(f) : 16x8x8
    weights = other(f) : 2x8x8
    level0 = conv(context) [3x3 s1 p1 g16 16->16] @levels.0 : 16x8x8
    weight0 = other(weights) : 1x8x8
    term0 = mul(level0, weight0) : 16x8x8
    level1 = conv(level0) [5x5 s1 p2 g16 16->16] @levels.1 : 16x8x8
    weight1 = other(weights) : 1x8x8
    term1 = mul(level1, weight1) : 16x8x8
    add = add(term0, term1) : 16x8x8
"""


def test_a_sum_of_weighted_levels_is_no_residual_unit():
    """As in FocalNet: the levels part at the first one, and no term is that level itself."""
    (found,) = residual_adds(GraphView.parse(FOCAL_LEVELS))
    assert isinstance(found, NotResidual)
    assert found.kind == "no_shortcut"


def test_a_branch_may_read_other_values():
    (found,) = residual_adds(GraphView.parse(FOCAL_LEVELS.replace("mul(level0, weight0)", "act(level0)")))
    assert isinstance(found, ResidualAdd)
    assert (found.fork.name, found.branch[0].name) == ("level0", "term1")


def test_a_size_that_one_input_reads_off_the_other_is_no_fork():
    """As in YOLO12's attention over areas: its position encoding takes the shape of the attention's result."""
    view = GraphView.parse("""
    x = input() : 16x8x8
    conv = conv(x) [3x3 s1 p1 16->16] @conv : 16x8x8
    size = size(conv)
    flat = reshape(x)
    back = reshape(flat, size) : 16x8x8
    more = conv(back) [3x3 s1 p1 16->16] @more : 16x8x8
    deep = conv(more) [3x3 s1 p1 16->16] @deep : 16x8x8
    add = add(conv, deep) : 16x8x8
    """)
    (found,) = residual_adds(view)
    assert isinstance(found, ResidualAdd)
    assert (found.fork.name, found.branch_depth, found.shortcut_depth) == ("x", 2, 1)


DOWN_AND_UP = """
    x = input() : 16x8x8
    down = conv(x) [3x3 s2 p1 16->16] @block.{first} : 16x4x4
    up = other(down) @block.{second} : 16x8x8
    out = conv(up) [1x1 s1 p0 16->16] @block.{second}.out : 16x8x8
    scale = other() @block.scale : 16x1x1
    scaled = mul(out, scale) @block.scale : 16x8x8
    add = add(x, scaled) @block : 16x8x8
"""


def test_a_module_that_goes_down_and_comes_back_is_the_branch_of_a_unit():
    """As in EfficientFormerV2, whose attention works at half the resolution."""
    (found,) = residual_adds(GraphView.parse(DOWN_AND_UP.format(first="mixer", second="mixer")))
    assert isinstance(found, ResidualAdd)
    assert found.branch[0].name == "out"


def test_an_encoder_and_a_decoder_are_no_branch_of_a_unit_whatever_scales_them():
    (found,) = residual_adds(GraphView.parse(DOWN_AND_UP.format(first="encoder", second="decoder")))
    assert isinstance(found, NotResidual)
    assert found.kind == "skip_connection"


PYRAMID = """
    x = input() : 16x8x8
    deep = conv(x) [3x3 s1 p1 16->16] @{first}.deep : 16x8x8
    inner = conv(deep) [1x1 s1 p0 16->16] @fpn.inner.1 : 16x8x8
    up = other(inner) @fpn : 16x8x8
    lateral = conv(x) [1x1 s1 p0 16->16] @fpn.inner.0 : 16x8x8
    add = add(lateral, up) @fpn : 16x8x8
"""


def test_a_sum_of_two_levels_of_a_pyramid_is_no_residual_unit():
    """As in torchvision's MobileNet detectors, whose last two levels have one resolution."""
    (found,) = residual_adds(GraphView.parse(PYRAMID.format(first="body")))
    assert isinstance(found, NotResidual)
    assert found.kind == "pyramid"


def test_a_branch_in_the_module_that_sums_or_beside_one_that_only_adds_is_one():
    (inside,) = residual_adds(GraphView.parse(PYRAMID.format(first="fpn")))
    assert isinstance(inside, ResidualAdd)
    text = PYRAMID.format(first="unit").replace("@fpn.inner", "@unit.inner").replace("@fpn", "@unit.skip_add")
    (beside,) = residual_adds(GraphView.parse(text))
    assert isinstance(beside, ResidualAdd)


def test_a_layer_that_adds_what_it_is_handed_ends_a_unit():
    """As in transformers' EfficientNet, whose projection holds the last convolution and the sum."""
    (found,) = residual_adds(
        GraphView.parse("""
        x = input() : 16x8x8
        wide = conv(x) [1x1 s1 p0 16->64] @block.expansion : 64x8x8
        narrow = conv(wide) [1x1 s1 p0 64->16] @block.projection.conv : 16x8x8
        add = add(narrow, x) @block.projection : 16x8x8
        """)
    )
    assert isinstance(found, ResidualAdd)


RES2NET = """
    x = input() : 32x8x8
    parts = other(x)
    first = other(parts) [piece 0] : 16x8x8
    second = other(parts) [piece {other}] : 16x8x8
    conv = conv(first) [3x3 s1 p1 16->16] @conv : 16x8x8
    add = add(conv, second) : 16x8x8
"""


def test_a_sum_of_different_pieces_of_a_split_is_no_residual_unit():
    (found,) = residual_adds(GraphView.parse(RES2NET.format(other=1)))
    assert isinstance(found, NotResidual)
    assert found.kind == "pieces"


def test_a_piece_that_is_picked_twice_is_one_value():
    (found,) = residual_adds(GraphView.parse(RES2NET.format(other=0)))
    assert isinstance(found, ResidualAdd)


def test_a_piece_is_part_of_the_text_form():
    view = GraphView.parse(RES2NET.format(other=1))
    assert GraphView.parse(str(view)).digest == view.digest
    assert [node.piece for node in view] == [None, None, 0, 1, None, None]


def test_a_map_that_is_computed_of_sizes_takes_no_block():
    view = GraphView.parse("""
    x = input() : 16x8x8
    height = size(x)
    places = other(height) : 4x8x8
    code = conv(places) [1x1 s1 p0 4->16] @code : 16x8x8
    body = conv(x) [3x3 s1 p1 16->16] @body : 16x8x8
    add = add(body, code) : 16x8x8
    """)
    assert [node.constant for node in view] == [False, True, True, True, False, False]
    plan = planner.plan(rules({"insert": "se", "at": "conv"}), view)
    assert [site.value for site in plan.sites] == ["body"]
    assert [(item.reason.kind, item.reason.where) for item in plan.rejected] == [("constant", "code")]
