import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesurgery.graph import ConvFacts, GraphView, NodeFacts, Op

UNIT = """x = input() : 16x32x32
conv1 = conv(x) [3x3 s2 p1 16->32] @b.conv1 : 32x16x16
dw = conv(conv1) [3x5 s1x2 p1x2 d2 g32 32->32] @b.dw : 32x16x8
twice = add(dw, dw) @b : 32x16x8
out = output(twice)"""


def test_the_text_form_reads_back_to_the_same_text():
    assert str(GraphView.parse(UNIT)) == UNIT


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="#,"), min_size=1)
SIZES = st.tuples(*[st.integers(1, 4096)] * 3)
PAIRS = st.tuples(st.integers(0, 99), st.integers(0, 99))
CONVS = st.builds(ConvFacts, PAIRS, PAIRS, PAIRS, PAIRS, st.integers(1, 99), st.integers(1, 999), st.integers(1, 999))


@st.composite
def views(draw):
    """Any graph: nodes with names of any kind, each reading some that come before it."""
    facts = []
    for name in draw(st.lists(NAMES | NAMES.map("{}()".format), max_size=6, unique=True)):
        earlier = [fact.name for fact in facts]
        inputs = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        op, scope = draw(st.sampled_from(Op)), draw(NAMES | st.just(""))
        shape, conv = draw(st.none() | SIZES), draw(st.none() | CONVS)
        facts.append(NodeFacts(name, op, tuple(inputs), scope, shape, conv))
    return GraphView(facts)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(views())
def test_what_a_graph_prints_is_that_graph(view):
    again = GraphView.parse(str(view))
    assert (str(again), again.digest) == (str(view), view.digest)
    assert [(node.scope, node.shape, node.conv) for node in again] == [
        (node.scope, node.shape, node.conv) for node in view
    ]


def test_a_value_that_is_read_twice_by_one_node_has_two_uses():
    graph = GraphView.parse(UNIT)
    assert [(use.user, use.slot) for use in graph["dw"].uses] == [("twice", 0), ("twice", 1)]


def test_convolution_facts_are_parsed_with_every_part():
    assert GraphView.parse(UNIT)["dw"].conv == ConvFacts((3, 5), (1, 2), (1, 2), (2, 2), 32, 32, 32)


def test_scopes_list_every_prefix_once():
    assert GraphView.parse(UNIT).scopes == ("b", "b.conv1", "b.dw")


def test_comments_and_blank_lines_are_passed_over():
    assert len(GraphView.parse("# a comment\n\nx = input()  # the image\n")) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = input()\nx = input()", "two nodes are called 'x'"),
        ("y = act(x)", "'y' reads 'x', which is not an earlier node"),
        ("x := input()", "line 1 is not"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        GraphView.parse(text)


def test_the_digest_changes_with_any_fact():
    facts = [NodeFacts("x", Op.INPUT, shape=(3, 8, 8))]
    assert GraphView(facts).digest == GraphView(facts).digest
    assert GraphView(facts).digest != GraphView([NodeFacts("x", Op.INPUT, shape=(3, 8, 9))]).digest
