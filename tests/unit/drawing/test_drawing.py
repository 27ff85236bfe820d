"""The picture of a plan: every unit and every block is in it, where it belongs; on graphs written as text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import pytest

from sesurgery import planner
from sesurgery.drawing import picture as drawing
from sesurgery.drawing.card import HIGH, Painted
from sesurgery.drawing.picture import to_svg
from sesurgery.drawing.units import Parts, units
from sesurgery.graph import GraphView
from sesurgery.pipeline import load_spec
from sesurgery.placements import PLACEMENTS
from sesurgery.placements.examples import units as examples
from sesurgery.planner import Plan

SVG = "{http://www.w3.org/2000/svg}"
EXAMPLES = [
    pytest.param(name, example, id=f"{name}: {example.name}")
    for name in PLACEMENTS.names()
    for example in PLACEMENTS.examples(name)
]
STRUCTURES = sorted(name for name, text in vars(examples).items() if isinstance(text, str) and "input()" in text)


def planned(graph: GraphView, *rules: Mapping[str, object]) -> Plan:
    model = {"source": "timm", "name": "any"}
    given = {"version": 1, "model": model, "input": {"shape": [3, 8, 8]}, "surgery": list(rules)}
    return planner.plan(load_spec(given), graph)


def empty(graph: GraphView) -> Plan:
    return planned(graph, {"insert": "se", "at": "residual", "max_channels": 1, "expect": 0})


def drawn(graph: GraphView | str, *rules: Mapping[str, object], title: str = "net") -> ElementTree.Element:
    graph = GraphView.parse(graph) if isinstance(graph, str) else graph
    return ElementTree.fromstring(to_svg(graph, planned(graph, *rules) if rules else empty(graph), title))


def sentences(picture: ElementTree.Element) -> list[str]:
    """What the picture says of each card, to those who point at it or hear it."""
    return [title.text or "" for title in picture.iter(f"{SVG}title")][1:]


def texts(picture: ElementTree.Element, css: str = "") -> list[str]:
    return [item.text or "" for item in picture.iter(f"{SVG}text") if css in (item.get("class") or "")]


def badges(picture: ElementTree.Element) -> int:
    """Blocks that are drawn: all badges but the legend's."""
    return sum(item.get("fill") in drawing.ink.RULES for item in picture.iter(f"{SVG}rect")) - 1


def residual_chain(count: int, *, widen_at: int = -1) -> GraphView:
    lines, before = ["x = input() : 8x4x4"], "x"
    for index in range(count):
        kernel = "5x5 s1 p2" if index == widen_at else "3x3 s1 p1"
        lines.append(f"c{index} = conv({before}) [{kernel} 8->8] @body.{index}.conv : 8x4x4")
        lines.append(f"s{index} = add(c{index}, {before}) @body.{index} : 8x4x4")
        before = f"s{index}"
    return GraphView.parse("\n".join(lines))


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        ("residual", "1×1, 16, then 3×3, 16, then 1×1, 64, then se, then +"),
        ("pre", "se, then 1×1, 16, then 3×3, 16, then 1×1, 64, then +"),
        ("inner", "1×1, 16, then 3×3, 16, then se, then 1×1, 64, then +"),
        ("post", "1×1, 16, then 3×3, 16, then 1×1, 64, then +, then se"),
    ],
)
def test_a_block_stands_where_the_placement_puts_it(at, parts):
    picture = drawn(examples.BOTTLENECK, {"insert": "se", "at": at})
    assert sentences(picture)[0] == f"b: residual unit, 64 → 64 channels: {parts}"


def test_a_block_on_the_shortcut_stands_beside_the_branch():
    picture = drawn(examples.BOTTLENECK, {"insert": "se", "at": "identity"})
    card = next(group for group in picture.iter(f"{SVG}g") if (group.findtext(f"{SVG}title") or "").startswith("b:"))
    left = {item.text: float(item.get("x", 0)) for item in card.iter(f"{SVG}text")}
    assert left["se"] > left["1×1, 16"] + 30
    assert left["1×1, 16"] == left["3×3, 16"] == left["1×1, 64"]


def test_a_projection_stands_on_the_shortcut():
    (first, *_) = sentences(drawn(examples.BASIC_WITH_PROJECTION))
    assert first.startswith("b: residual unit, 16 → 32 channels: ")
    assert sorted(first.split(": ")[2].split(", then ")) == ["+", "1×1, 32, /2", "3×3, 32", "3×3, 32, /2"]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_block_is_drawn_once_whatever_the_network(name, example):
    graph = GraphView.parse(example.graph)
    if not example.matches:
        assert drawn(graph).tag == f"{SVG}svg"
        return
    options = {key: value for key, value in vars(example.placement).items() if value is not None}
    rule = {"insert": "se", "at": {"placement": name, **_plain(options)}}
    assert badges(drawn(graph, rule)) == len(example.matches)


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_part_of_a_network_is_in_exactly_one_unit(name):
    graph = GraphView.parse(getattr(examples, name))
    parts = Parts(graph)
    members = [node.name for unit in units(graph, parts) for node in unit.nodes]
    assert len(members) == len(set(members))
    assert {node.name for node in graph if parts.drawn(node)} <= set(members)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_no_wire_runs_through_a_part(name, example):
    graph = GraphView.parse(example.graph)
    parts = Parts(graph)
    cards = drawing.cards_of(graph, empty(graph), parts, units(graph, parts))
    crossed = [(card.name, wire) for card in cards for wire in card.wiring.wires if _crosses(Painted(card, {}), wire)]
    assert crossed == []


def _crosses(painted: Painted, wire) -> bool:
    route = painted.route(wire)
    ends = (wire.source, wire.target)
    return any(
        _meet(one, two, painted.span[name], painted.top(part))
        for one, two in itertools.pairwise(route)
        for name, part in painted.parts.items()
        if name not in ends
    )


def _meet(one: Sequence[float], two: Sequence[float], span: tuple[float, float], top: float) -> bool:
    across = (
        max(min(one[0], two[0]), span[0]) < min(max(one[0], two[0]), span[1]) or span[0] < one[0] == two[0] < span[1]
    )
    down = max(min(one[1], two[1]), top) < min(max(one[1], two[1]), top + HIGH) or top < one[1] == two[1] < top + HIGH
    return across and down


def test_a_multi_branch_module_is_one_card_with_its_inner_join():
    inception = PLACEMENTS.examples("concat")[0].graph
    picture = drawn(inception, {"insert": "se", "at": "concat"})
    assert sentences(picture)[0].startswith("mixed: multi-branch module, 64 → 112 channels: ")
    assert texts(picture)[:1] == ["net"]
    assert {"concat, 32", "concat, 112"} <= set(texts(picture))


def test_a_gate_that_is_taken_out_is_struck_through_before_the_block_in_its_place():
    gated = """
        x = input() : 16x8x8
        a = conv(x) [3x3 s1 p1 16->16] @b.a : 16x8x8
        mean = global_pool(a) @b.se : 16x1x1
        f1 = conv(mean) [1x1 s1 p0 16->4] @b.se.f1 : 4x1x1
        f2 = conv(f1) [1x1 s1 p0 4->16] @b.se.f2 : 16x1x1
        gate = act(f2) @b.se.gate : 16x1x1
        scaled = mul(a, gate) @b.se : 16x8x8
        c = conv(scaled) [3x3 s1 p1 16->16] @b.c : 16x8x8
        s = add(c, x) @b : 16x8x8
        out = output(s)
    """
    picture = drawn(gated, {"replace": "se", "insert": "eca"})
    assert sentences(picture) == [
        "b: residual unit, 16 → 16 channels: 3×3, 16, then se taken out, then eca, then 3×3, 16, then +"
    ]
    assert texts(picture, "struck")[0] == "se"
    kept = sentences(drawn(gated))
    assert kept == ["b: residual unit, 16 → 16 channels: 3×3, 16, then se, then 3×3, 16, then +"]


def test_units_that_look_alike_share_a_card_only_where_there_are_too_many():
    few = drawn(residual_chain(drawing.MANY))
    assert len(sentences(few)) == drawing.MANY
    many = drawn(residual_chain(drawing.MANY + 10, widen_at=20))
    assert [text for text in texts(many, "badge") if text != "×3"] == ["×20", "×19"]
    assert texts(many, "code") == ["body.0 … 19", "body.20", "body.21 … 39"]


def test_a_unit_with_a_block_does_not_share_a_card_with_one_without():
    chain = residual_chain(40)
    picture = drawn(chain, {"insert": "se", "at": "residual", "within": "body.5"})
    assert texts(picture, "code") == ["body.0 … 4", "body.5", "body.6 … 39"]


def test_two_rules_have_two_colours_and_the_legend_says_what_they_insert():
    chain = residual_chain(4)
    first = {"insert": {"block": "se", "reduction": 2}, "at": "residual", "within": "body.0"}
    picture = drawn(chain, first, {"insert": "eca", "at": "residual", "within": "body.[12]"})
    used = {item.get("fill") for item in picture.iter(f"{SVG}rect")} & set(drawing.ink.RULES)
    assert len(used) == 2
    assert {"inserted: 1 × se(reduction=2.0)", "inserted: 2 × eca"} <= {
        re.sub(r"=2\)", "=2.0)", item) for item in texts(picture)
    }


def test_a_structure_that_nobody_has_a_name_for_is_a_list_of_its_parts():
    picture = drawn("""
        x = input() : 3x8x8
        a = conv(x) [3x3 s1 p1 3->8] @stem : 8x8x8
        flat = reshape(a)
        mix_0 = other(flat) @mix.0
        b = linear(mix_0) @fc1
        c = linear(b) @fc2
        out = output(c)
    """)
    assert [sentence.split(":")[0] for sentence in sentences(picture)] == ["stem", "head"]
    assert {"linear"} <= set(texts(picture))


def test_a_skip_over_whole_units_leaves_the_units_as_they_are():
    chain = str(residual_chain(3)) + "\nlong = add(s2, x) @net : 8x4x4"
    assert [sentence.split(":")[0] for sentence in sentences(drawn(chain))] == ["body.0", "body.1", "body.2", "net"]


def test_names_from_outside_are_text_and_nothing_else():
    graph = GraphView.parse('x = input() : 3x8x8\na = conv(x) [3x3 s1 p1 3->8] @<b>&"c" : 8x8x8\nout = output(a)')
    picture = drawn(graph, title='a "title" <script>&amp;')
    assert picture.findtext(f"{SVG}title") == 'a "title" <script>&amp;'
    assert '<b>&"c"' in texts(picture, "code")


def test_a_picture_needs_nothing_else_and_has_its_own_background():
    picture = to_svg(residual_chain(2), empty(residual_chain(2)), "net")
    assert re.findall(r"https?://\S+?(?=\")", picture) == ["http://www.w3.org/2000/svg"]
    root = ElementTree.fromstring(picture)
    background = next(root.iter(f"{SVG}rect"))
    assert (background.get("width"), background.get("height")) == (root.get("width"), root.get("height"))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}desc")


def test_the_same_plan_gives_the_same_picture():
    graph = GraphView.parse(examples.BASIC_WITH_PROJECTION)
    assert to_svg(graph, empty(graph), "net") == to_svg(graph, empty(graph), "net")


def test_bands_carry_the_resolution_and_the_stage_of_the_plan():
    shown = texts(drawn(examples.BASIC_WITH_PROJECTION))
    assert "4 × 4" in shown
    assert any(text.startswith("stage 1 · ") for text in shown)
