import pytest

from sesurgery.graph import GraphView
from sesurgery.graph.idioms import conv_units, squeezed, stages
from sesurgery.graph.residual import NotResidual, ResidualAdd, residual_adds


def only_add(text):
    (found,) = residual_adds(GraphView.parse(text))
    return found


def test_the_longest_chain_of_convolutions_decides_which_side_is_the_branch():
    found = only_add("""
        x = input() : 8x8x8
        a = conv(x) [1x1 s1 p0 8->8] : 8x8x8
        b = conv(a) [3x3 s1 p1 8->8] : 8x8x8
        p = conv(x) [1x1 s1 p0 8->8] : 8x8x8
        s = add(p, b) : 8x8x8
    """)
    assert isinstance(found, ResidualAdd)
    assert (found.branch[0].name, found.shortcut[0].name, found.fork.name) == ("b", "p", "x")
    assert (found.branch_depth, found.shortcut_depth) == (2, 1)


def test_a_residual_inside_the_branch_does_not_hide_the_outer_fork():
    found = residual_adds(
        GraphView.parse("""
        x = input() : 8x8x8
        a = conv(x) [3x3 s1 p1 8->8] : 8x8x8
        b = conv(a) [3x3 s1 p1 8->8] : 8x8x8
        inner = add(b, a) : 8x8x8
        outer = add(x, inner) : 8x8x8
    """)
    )
    assert [(item.fork.name, item.branch[0].name) for item in found] == [("a", "b"), ("x", "inner")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = input() : 8x8x8\ns = add(x, x) : 8x8x8", "both inputs are one value"),
        ("x = input() : 8x8x8\ns = add(x) : 8x8x8", "it adds a constant"),
        ("x = input() : 8x8x8\ny = input() : 8x8x8\ns = add(x, y) : 8x8x8", "no common source"),
        ("x = input() : 8x8x8\ny = pool(x) : 8x4x4\ns = add(x, y) : 8x8x8", "differ in shape: 8x8x8 and 8x4x4"),
        ("x = input()\ny = linear(x)\ns = add(x, y)", "does not sum feature maps"),
        ("x = input() : 8x8x8\ny = act(x) : 8x8x8\ns = add(x, y) : 8x8x8", "no convolution"),
    ],
)
def test_a_sum_that_is_no_residual_says_why(text, why):
    found = only_add(text)
    assert isinstance(found, NotResidual)
    assert why in found.why


def test_a_position_code_on_the_branch_does_not_count_as_a_path():
    found = only_add("""
        x = input() : 8x8x8
        code = other() : 8x8x8
        far = conv(code) [3x3 s1 p1 8->8] : 8x8x8
        mixed = mul(x, far) : 8x8x8
        a = conv(mixed) [3x3 s1 p1 8->8] : 8x8x8
        s = add(a, x) : 8x8x8
    """)
    assert (found.branch[0].name, found.branch_depth) == ("a", 1)


def test_a_unit_ends_at_its_activation_whether_the_norm_is_folded_or_not():
    with_norm = "x = input() : 3x8x8\nc = conv(x) [3x3 s1 p1 3->8] : 8x8x8\nn = norm(c) : 8x8x8\nr = act(n) : 8x8x8"
    folded = "x = input() : 3x8x8\nc = conv(x) [3x3 s1 p1 3->8] : 8x8x8\nr = act(c) : 8x8x8"
    assert [conv_units(GraphView.parse(text))[0].end.name for text in (with_norm, folded)] == ["r", "r"]


def test_a_norm_that_is_not_the_only_reader_is_no_part_of_the_unit():
    graph = GraphView.parse(
        "x = input() : 3x8x8\nc = conv(x) [3x3 s1 p1 3->8] : 8x8x8\nn = norm(c) : 8x8x8\no = act(c) : 8x8x8"
    )
    assert conv_units(graph)[0].end.name == "c"


def test_stages_are_the_resolutions_at_which_residuals_are_added():
    graph = GraphView.parse("""
        x = input() : 8x16x16
        a = conv(x) [3x3 s1 p1 8->8] : 8x16x16
        s1 = add(a, x) : 8x16x16
        b = conv(s1) [3x3 s2 p1 8->8] : 8x8x8
        c = conv(b) [3x3 s1 p1 8->8] : 8x8x8
        s2 = add(c, b) : 8x8x8
    """)
    assert stages(graph) == ((16, 16), (8, 8))


def test_a_network_without_residuals_has_its_convolutions_resolutions_as_stages():
    graph = GraphView.parse(
        "x = input() : 3x8x8\na = conv(x) [3x3 s1 p1 3->8] : 8x8x8\nb = conv(a) [3x3 s2 p1 8->8] : 8x4x4"
    )
    assert stages(graph) == ((8, 8), (4, 4))


def test_a_row_of_channels_that_becomes_a_column_is_not_pooled():
    view = GraphView.parse("""
    x = input() : 8x4x4
    pool = global_pool(x) : 8x1x1
    down = conv(x) [4x4 s4 p0 8->8] @down : 8x1x1
    row = reshape(down) : 1x1x8
    column = other(row) : 8x1x1
    gate = act(pool) : 8x1x1
    size = size(pool)
    same = reshape(column, size) : 8x1x1
    """)
    assert squeezed(view) == {"pool", "gate"}
