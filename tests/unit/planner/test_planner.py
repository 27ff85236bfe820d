"""Planning on graphs written as text; nothing here imports torch."""

from dataclasses import dataclass

import pytest

from sesurgery import planner
from sesurgery.blocks.base import Block
from sesurgery.diagnostics import SpecError
from sesurgery.graph import GraphView
from sesurgery.placements import PLACEMENTS
from sesurgery.planner import Plan
from sesurgery.spec import Catalogs, load


@dataclass(frozen=True)
class Fake(Block):
    """A block that needs no framework."""

    ratio: int = 16

    def build(self, channels):
        raise NotImplementedError

    def advice(self, channels):
        return "narrow" if channels // self.ratio < 2 else None


class Fakes:
    """A catalog of that one block."""

    kind = "block"

    def names(self):
        return ("fake",)

    def load(self, name):
        return Fake


@dataclass(frozen=True)
class FakeData:
    """A data set that needs no framework."""


class FakeDatasets(Fakes):
    kind = "dataset"

    def names(self):
        return ("digits",)

    def load(self, name):
        return FakeData


@dataclass(frozen=True)
class FakeEngine:
    """A backend that needs no framework."""


class FakeBackends(Fakes):
    kind = "backend"

    def names(self):
        return ("onnxruntime",)

    def load(self, name):
        return FakeEngine


CATALOGS = Catalogs(Fakes(), PLACEMENTS, FakeDatasets(), FakeBackends())

NETWORK = GraphView.parse("""
x = input() : 3x32x32
stem = conv(x) [3x3 s1 p1 3->16] @stem : 16x32x32
a = conv(stem) [3x3 s1 p1 16->16] @layer1.0.conv : 16x32x32
s1 = add(a, stem) @layer1.0 : 16x32x32
b = conv(s1) [3x3 s1 p1 16->16] @layer1.1.conv : 16x32x32
s2 = add(b, s1) @layer1.1 : 16x32x32
c = conv(s2) [3x3 s2 p1 16->32] @layer2.0.conv1 : 32x16x16
d = conv(c) [3x3 s1 p1 32->32] @layer2.0.conv2 : 32x16x16
p = conv(s2) [1x1 s2 p0 16->32] @layer2.0.down : 32x16x16
s3 = add(d, p) @layer2.0 : 32x16x16
u = conv(s3) [3x3 s1 p1 32->32] @layer2.1.left : 32x16x16
v = conv(s3) [3x3 s1 p1 32->32] @layer2.1.right : 32x16x16
s4 = add(u, v) @layer2.1 : 32x16x16
out = output(s4)
""")


def spec(*rules):
    return load(
        {
            "version": 1,
            "model": {"source": "timm", "name": "any"},
            "input": {"shape": [3, 32, 32]},
            "surgery": [{"insert": "fake", "at": "residual", **rule} for rule in rules],
        },
        CATALOGS,
    )


def keys(*rules):
    return [site.key for site in planner.plan(spec(*rules), NETWORK).sites]


def test_a_plan_lists_the_residual_branches_in_order():
    assert keys({}) == ["fake/layer1.0[0]", "fake/layer1.1[0]", "fake/layer2.0[0]"]


def test_the_table_shows_stage_channels_size_and_value():
    plan = planner.plan(spec({"insert": {"block": "fake", "ratio": 4}}), NETWORK)
    assert plan.table().splitlines() == [
        "site              stage  channels  size   block          on",
        "fake/layer1.0[0]  1      16        32x32  fake(ratio=4)  a",
        "fake/layer1.1[0]  1      16        32x32  fake(ratio=4)  b",
        "fake/layer2.0[0]  2      32        16x16  fake(ratio=4)  d",
    ]
    assert plan.stage_line() == "stages: 1 = 32x32, 2 = 16x16"


def test_what_is_turned_down_carries_its_reason():
    plan = planner.plan(spec({"stages": [2]}), NETWORK)
    assert [(item.reason.where, item.reason.text) for item in plan.rejected] == [
        ("layer1.0", "stage 1 is not in 'stages'"),
        ("layer1.1", "stage 1 is not in 'stages'"),
        ("layer2.1", "both inputs lie 1 convolution deep: branch and shortcut look alike"),
    ]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"stages": [1]}, ["layer1.0", "layer1.1"]),
        ({"within": "layer1.*"}, ["layer1.0", "layer1.1"]),
        ({"within": ["layer1.0", "layer2*"]}, ["layer1.0", "layer2.0"]),
        ({"except": "layer1.1"}, ["layer1.0", "layer2.0"]),
        ({"min_channels": 17}, ["layer2.0"]),
        ({"within": "layer*", "except": ["layer2*"], "stages": [1]}, ["layer1.0", "layer1.1"]),
        ({"max_channels": 16}, ["layer1.0", "layer1.1"]),
        ({"min_size": 17}, ["layer1.0", "layer1.1"]),
        ({"max_size": 16}, ["layer2.0"]),
        ({"pick": "first"}, ["layer1.0", "layer2.0"]),
        ({"pick": "last"}, ["layer1.1", "layer2.0"]),
        ({"every": 2}, ["layer1.0", "layer2.0"]),
        ({"every": 2, "stages": [1]}, ["layer1.0"]),
    ],
    ids=str,
)
def test_filters_leave_what_they_say(rule, left):
    assert keys(rule) == [f"fake/{scope}[0]" for scope in left]


def test_two_rules_of_one_block_get_names_of_their_own():
    assert keys({"stages": [1]}, {"stages": [2]}) == ["fake/layer1.0[0]", "fake/layer1.1[0]", "fake_2/layer2.0[0]"]


def test_a_rule_can_be_named():
    plan = planner.plan(spec({"name": "attention", "stages": [2]}), NETWORK)
    assert [(site.key, site.module) for site in plan.sites] == [("attention/layer2.0[0]", "layer2.0.attention")]


def test_two_rules_on_one_value_are_an_error_that_names_both():
    with pytest.raises(SpecError, match=r"SE203.*'fake' and 'fake_2' both insert on a \(layer1.0\)"):
        keys({}, {"within": "layer1.0"})


def test_every_mistake_of_every_rule_is_reported_at_once():
    with pytest.raises(SpecError) as caught:
        keys({"stages": [7]}, {"within": "nowhere"}, {"min_channels": 999}, {"expect": 2})
    assert [item.code for item in caught.value.diagnostics] == ["SE205", "SE204", "SE201", "SE202"]


def test_a_rule_may_expect_nothing():
    assert keys({"min_channels": 999, "expect": 0}) == []


def test_advice_is_given_once_and_names_its_sites():
    plan = planner.plan(spec({}), NETWORK)
    assert plan.warnings == ("narrow (fake/layer1.0[0], fake/layer1.1[0])",)


def test_a_scope_filter_on_a_network_without_scopes_points_to_the_structural_placements():
    bare = GraphView.parse("x = input() : 8x8x8\nc = conv(x) [3x3 s1 p1 8->8] : 8x8x8\ns = add(c, x) : 8x8x8")
    with pytest.raises(SpecError, match="has no scopes: use the structural placements"):
        planner.plan(spec({"within": "layer1"}), bare)


def test_a_plan_reads_back_from_its_json():
    plan = planner.plan(spec({"insert": {"block": "fake", "ratio": 2}}), NETWORK)
    assert Plan.from_json(plan.to_json(), Fakes()) == plan


def test_a_key_means_the_same_site_under_any_filter():
    twins = GraphView.parse("""
        x = input() : 8x8x8
        a = conv(x) [3x3 s1 p1 8->8] @b.c1 : 8x8x8
        s1 = add(a, x) @b : 8x8x8
        c = conv(s1) [3x3 s2 p1 8->8] @b.c2 : 8x4x4
        d = conv(c) [3x3 s1 p1 8->8] @b.c3 : 8x4x4
        s2 = add(d, c) @b : 8x4x4
    """)
    assert [site.key for site in planner.plan(spec({}), twins).sites] == ["fake/b[0]", "fake/b[1]"]
    assert [site.key for site in planner.plan(spec({"stages": [2]}), twins).sites] == ["fake/b[1]"]
    assert planner.plan(spec({"stages": [2]}), twins).sites[0].module == "b.fake_1"


GATED = GraphView.parse("""
x = input() : 16x8x8
conv1 = conv(x) [3x3 s1 p1 16->16] @b.conv1 : 16x8x8
act1 = act(conv1) @b.act1 : 16x8x8
mean = global_pool(act1) @b.se : 16x1x1
fc1 = conv(mean) [1x1 s1 p0 16->4] @b.se.fc1 : 4x1x1
fc2 = conv(fc1) [1x1 s1 p0 4->16] @b.se.fc2 : 16x1x1
gate = act(fc2) @b.se.gate : 16x1x1
scaled = mul(act1, gate) @b.se : 16x8x8
conv2 = conv(scaled) [3x3 s1 p1 16->16] @b.conv2 : 16x8x8
pool2 = global_pool(conv2) @b.ese : 16x1x1
fc = conv(pool2) [1x1 s1 p0 16->16] @b.ese.fc : 16x1x1
gate2 = act(fc) @b.ese.gate : 16x1x1
scaled2 = mul(gate2, conv2) @b.ese : 16x8x8
add = add(x, scaled2) @b : 16x8x8
out = output(add)
""")


def gated(*rules):
    data = {"version": 1, "model": {"source": "timm", "name": "any"}, "input": {"shape": [16, 8, 8]}}
    return planner.plan(load({**data, "surgery": list(rules)}, CATALOGS), GATED)


def test_existing_gates_are_found_by_their_dataflow_and_kind():
    assert [(item.scope, item.output, item.value) for item in gated({"remove": "any"}).removals] == [
        ("b.se", "scaled", "act1"),
        ("b.ese", "scaled2", "conv2"),
    ]
    assert [item.scope for item in gated({"remove": {"block": "se"}}).removals] == ["b.se"]
    assert [item.scope for item in gated({"remove": "effective_se"}).removals] == ["b.ese"]


def test_inserting_where_a_gate_stands_is_refused():
    with pytest.raises(SpecError, match=r"it has a channel gate already \(b.ese\): remove or replace it"):
        gated({"insert": "fake", "at": "residual"})
    with pytest.raises(SpecError, match=r"it has a channel gate already \(b.se\)"):
        gated({"insert": "fake", "at": "inner"})


def test_inserting_where_a_gate_goes_takes_over_its_readers():
    plan = gated({"insert": "fake", "at": "inner"}, {"insert": "fake", "at": "residual"}, {"remove": "any"})
    assert [(site.value, [use.user for use in site.uses]) for site in plan.sites] == [
        ("act1", ["conv2"]),
        ("conv2", ["add"]),
    ]


def test_replacing_puts_the_new_block_into_the_unit():
    plan = gated({"replace": "se", "insert": "fake", "name": "attention"})
    assert [(site.key, site.value, [use.user for use in site.uses]) for site in plan.sites] == [
        ("attention/b[0]", "act1", ["conv2"])
    ]
    assert [item.output for item in plan.removals] == ["scaled"]


def test_two_rules_cannot_take_out_one_gate():
    with pytest.raises(SpecError, match=r"the rule 'remove_any' removes it already"):
        gated({"remove": "any"}, {"remove": "se"})


def test_a_network_without_gates_says_so_when_one_is_to_go():
    with pytest.raises(SpecError, match=r"'remove: se' matches nothing(.|\n)*has no channel gate"):
        planner.plan(
            load(
                {
                    "version": 1,
                    "model": {"source": "timm", "name": "any"},
                    "input": {"shape": [3, 8, 8]},
                    "surgery": [{"remove": "se"}],
                },
                CATALOGS,
            ),
            NETWORK,
        )


def test_a_default_name_that_a_module_has_already_gets_a_number_and_a_placeholder_does_not_count():
    unit = """
        x = input() : 8x8x8
        c = conv(x) [3x3 s1 p1 8->8] @b.{c} : 8x8x8
        p = pass(c) @b.{p} : 8x8x8
        s = add(p, x) @b : 8x8x8
    """
    named = GraphView.parse(unit.format(c="fake", p="drop"))
    held = GraphView.parse(unit.format(c="conv", p="fake"))
    assert [site.key for site in planner.plan(spec({}), named).sites] == ["fake_2/b[0]"]
    assert [site.key for site in planner.plan(spec({}), held).sites] == ["fake/b[0]"]


def test_a_gate_behind_an_identity_is_seen_and_its_removal_too():
    graph = GraphView.parse("""
        x = input() : 16x8x8
        c = conv(x) [3x3 s1 p1 16->16] @b.conv : 16x8x8
        n = norm(c) @b.bn : 16x8x8
        held = pass(n) @b.aa : 16x8x8
        mean = global_pool(held) @b.se : 16x1x1
        fc1 = conv(mean) [1x1 s1 p0 16->4] @b.se.fc1 : 4x1x1
        fc2 = conv(fc1) [1x1 s1 p0 4->16] @b.se.fc2 : 16x1x1
        scaled = mul(held, fc2) @b.se : 16x8x8
        last = conv(scaled) [1x1 s1 p0 16->16] @b.last : 16x8x8
        add = add(x, last) @b : 16x8x8
    """)
    with pytest.raises(SpecError, match=r"it has a channel gate already \(b.se\)"):
        planner.plan(spec({"at": "inner"}), graph)
    data = {"version": 1, "model": {"source": "timm", "name": "any"}, "input": {"shape": [16, 8, 8]}}
    both = [{"insert": "fake", "at": "inner"}, {"remove": "se"}]
    plan = planner.plan(load({**data, "surgery": both}, CATALOGS), graph)
    assert [(site.value, [use.user for use in site.uses]) for site in plan.sites] == [("n", ["held"])]
