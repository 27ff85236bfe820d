"""`inspect` and `init` on real networks: what they say is so, and a spec that was begun can be gone on with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import timm
import yaml

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.inspect import structural
from sesurgery.reports.text import inspection

TINY = "python:sesurgery.networks.cifar_resnet:resnet20"


@dataclass(frozen=True)
class Begun:
    """A network, and the rule that suits its structure."""

    model: str
    rule: dict[str, object]
    shape: tuple[int, int, int] = (3, 224, 224)


SE, SE_NARROW = {"block": "se", "reduction": 16}, {"block": "se", "reduction": 16, "min_width": 8}
SPATIAL = {"placement": "conv", "spatial_only": True}
BEGUN = [
    Begun("timm:resnet18", {"insert": SE_NARROW, "at": "residual", "expect": 8}),
    Begun("timm:vgg11_bn", {"insert": SE_NARROW, "at": "conv", "expect": 8}),
    Begun("timm:densenet121", {"insert": SE_NARROW, "at": SPATIAL, "expect": 59}),
    Begun("timm:mobilenetv3_small_100", {"insert": SE_NARROW, "at": "residual", "expect": 6}),
    Begun("torchvision:googlenet", {"insert": SE, "at": "concat", "expect": 9}),
    Begun("timm:efficientnet_b0", {"insert": SE_NARROW, "at": "residual", "expect": 9}),
    Begun("timm:convnext_atto", {"insert": SE_NARROW, "at": "residual", "expect": 12}),
    Begun("timm:seresnet18", {"replace": "se", "insert": SE_NARROW, "expect": 8}),
    Begun("torchvision:squeezenet1_0", {"insert": SE, "at": "concat", "expect": 8}),
    Begun(TINY, {"insert": SE_NARROW, "at": "residual", "expect": 9}),
]


BLIND = """
from torch import nn


class Picky(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def make():
    return nn.Sequential(Picky(), Picky(), nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
"""


def uncommented(text: str) -> str:
    """The spec with everything that is commented out in its options put in."""
    return re.sub(
        r"^( *)# (?=(stages|within|min_channels|kwargs|train|engines|  - \{backend)\b)", r"\1", text, flags=re.M
    )


@pytest.mark.parametrize("begun", BEGUN, ids=lambda begun: begun.model)
def test_a_spec_that_was_begun_loads_and_plans_as_it_is(begun, tmp_path):
    made = pipeline.init(begun.model, tmp_path / "net.yaml")
    spec = pipeline.load_spec(tmp_path / "net.yaml")
    assert yaml.safe_load(made.text)["surgery"] == [begun.rule]
    assert spec.input.shape == begun.shape
    planned = pipeline.plan(spec)
    assert len(planned.plan.sites) == begun.rule["expect"]
    assert planned.plan.warnings == ()
    assert planned.plan.stage_line().removeprefix("stages: ") in made.text


@pytest.mark.parametrize("model", [TINY, "torchvision:squeezenet1_0"])
def test_the_options_of_a_begun_spec_are_right_once_they_are_no_comments(model, tmp_path):
    made = pipeline.init(model, tmp_path / "net.yaml")
    opened = yaml.safe_load(uncommented(made.text))
    rule = opened["surgery"][0]
    assert {"stages", "within", "min_channels"} <= rule.keys()
    assert {"train", "engines"} <= opened.keys()
    for filters in ("stages", "within", "min_channels"):
        kept = {key: value for key, value in rule.items() if key not in {"stages", "within", "min_channels", "expect"}}
        narrowed = {**opened, "surgery": [{**kept, filters: rule[filters]}]}
        planned = pipeline.plan(pipeline.load_spec(narrowed))
        assert 0 < len(planned.plan.sites) <= rule["expect"]


def test_the_other_places_in_a_begun_spec_have_the_number_of_sites_that_it_says(tmp_path):
    text = pipeline.init(TINY, tmp_path / "net.yaml").text
    others = re.findall(r"^  # at: (\w+) +# (\d+) sites", text, re.M)
    assert [name for name, _ in others] == ["pre", "post", "identity", "inner", "conv"]
    for name, count in others:
        there = text.replace("at: residual ", f"at: {name} ").replace("expect: 9 ", f"expect: {count} ")
        assert len(pipeline.plan(pipeline.load_spec(yaml.safe_load(there))).plan.sites) == int(count)


def test_a_network_with_gates_is_offered_their_replacement(tmp_path):
    text = pipeline.init("timm:mobilenetv3_small_100", tmp_path / "net.yaml").text
    _, _, offer = text.partition("In their place:\n")
    rule = yaml.safe_load("\n".join(line.removeprefix("  # ") for line in offer.splitlines()[:3]))
    assert rule == [{"replace": "se", "insert": SE_NARROW, "expect": 9}]
    data = {**yaml.safe_load(text), "surgery": rule}
    assert len(pipeline.plan(pipeline.load_spec(data)).plan.removals) == 9


def test_a_file_that_is_there_is_not_replaced_unless_told_to(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("mine\n")
    with pytest.raises(SesurgeryError, match=r"SE405.*net.yaml is already there(.|\n)*--force"):
        pipeline.init(TINY, path)
    assert path.read_text() == "mine\n"
    assert pipeline.init(TINY, path, force=True).path == path
    assert pipeline.load_spec(path).name == "net"


def test_a_begun_spec_names_the_schema_only_where_there_is_one(tmp_path):
    assert "yaml-language-server" not in pipeline.init(TINY, tmp_path / "net.yaml").text
    (tmp_path / "schema.json").write_text("{}")
    begun = pipeline.init(TINY, tmp_path / "other.yaml").text
    assert begun.startswith("# yaml-language-server: $schema=schema.json\n")


def test_an_input_that_nobody_knows_is_said_to_be_assumed(tmp_path):
    assert "(assumed: the network does not tell)" in pipeline.init(TINY, tmp_path / "a.yaml").text
    told = pipeline.init(TINY, tmp_path / "b.yaml", shape=(3, 32, 32)).text
    assert "assumed" not in told
    assert "1 = 32x32, 2 = 16x16, 3 = 8x8" in told


def test_the_input_is_the_one_that_the_network_was_made_for():
    assert pipeline.inspect("timm:test_resnet", at=["residual"]).shape == (3, 160, 160)
    assert pipeline.inspect("torchvision:efficientnet_b1", at=["residual"]).shape == (3, 240, 240)


def test_inspect_counts_what_is_there():
    seen = pipeline.inspect("timm:seresnet18")
    assert (seen.conv_units, seen.residual_units, len(seen.gates)) == (36, 8, 8)
    assert {(gate.kind, gate.stage) for gate in seen.gates} == {("se", stage) for stage in (1, 2, 3, 4)}
    own = timm.create_model("seresnet18").parameters()
    assert (seen.cost.params, seen.stages[0]) == (sum(part.numel() for part in own), (56, 56))
    assert [offer.placement for offer in seen.offers] == list(structural())


def test_inspect_offers_what_a_plan_takes():
    seen = pipeline.inspect(TINY, (3, 32, 32))
    for offer in seen.offers:
        if offer.sites:
            rule = {"insert": "se", "at": offer.placement}
            model = {"source": "python", "name": TINY.partition(":")[2]}
            spec = pipeline.load_spec(
                {"version": 1, "model": model, "input": {"shape": [3, 32, 32]}, "surgery": [rule]}
            )
            planned = pipeline.plan(spec).plan.sites
            assert [(site.scope, site.value) for site in planned] == [(site.scope, site.value) for site in offer.sites]


def test_inspect_takes_the_model_and_the_input_of_a_spec(tmp_path):
    pipeline.init(TINY, tmp_path / "net.yaml", shape=(3, 64, 64))
    assert pipeline.inspect(str(tmp_path / "net.yaml")).shape == (3, 64, 64)
    assert pipeline.inspect(str(tmp_path / "net.yaml"), (3, 32, 32)).shape == (3, 32, 32)


def test_the_text_of_a_deep_network_fits_on_a_screen():
    lines = inspection.to_text(pipeline.inspect("timm:resnet152")).splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 120
    assert "  stage 3  14x14  36 sites  1024 channels  layer3.0, layer3.1 … layer3.35" in lines
    assert "residual, post, identity: 50 sites" in lines


def test_reasons_that_differ_in_a_name_alone_are_counted_as_one():
    seen = pipeline.inspect("timm:densenet121", at=["residual", "concat"])
    text = inspection.to_text(seen)
    assert "residual: none\n  the network has no candidate of this kind" in text
    assert "turned down, 58: features_pool0 is joined with what was computed from it" in text
    assert "(features.denseblock1.denselayer2 … features.denseblock4)" in text
    assert inspection.to_text(seen, every=True).count("is joined with what was computed from it") == 58


def test_modules_that_cannot_be_traced_are_named_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "blind_net.py").write_text(BLIND)
    monkeypatch.chdir(tmp_path)
    text = inspection.to_text(pipeline.inspect("python:blind_net:make", (3, 8, 8), ["conv"]))
    assert "  taken as a whole when tracing, 2: symbolically traced variables cannot be used" in text
    assert "(0, 1)" in text
    assert "conv: 1 site" in text


def test_inspect_as_data_says_the_same():
    seen = pipeline.inspect(TINY, (3, 32, 32), ["residual", "concat"])
    data = json.loads(json.dumps(inspection.to_json(seen)))
    assert data["placements"][1] == {"placement": "concat", "sites": [], "rejected": []}
    assert data["placements"][0]["sites"][0] == {
        "scope": "layer1.0", "stage": 1, "channels": 16, "height": 32, "width": 32, "value": "layer1_0_bn2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "at", "message"),
    [
        ("resnet18", (), r"SE301.*does not say where the network comes from(.|\n)*timm:resnet18"),
        ("timm:resnet_18", (), r"SE301.*timm has no model 'resnet_18'(.|\n)*did you mean"),
        (TINY, ("modul",), r"SE105.*unknown placement 'modul'(.|\n)*did you mean 'module'"),
        (TINY, ("module",), r"SE105.*'module' takes options(.|\n)*structural placements: residual, pre"),
        ("torchvision:nothing.yaml", (), r"SE301.*torchvision has no model .nothing.yaml."),
        ("nothing.yaml", (), r"SE001"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(model, at, message):
    with pytest.raises(SesurgeryError, match=message):
        pipeline.inspect(model, at=at)


def test_an_input_that_does_not_fit_points_to_the_option():
    with pytest.raises(SesurgeryError, match=r"SE304.*1x32x32(.|\n)*--shape CHANNELS,HEIGHT,WIDTH"):
        pipeline.inspect(TINY, (1, 32, 32))


def test_the_picture_of_a_plan_is_written_whole(tmp_path):
    pipeline.init(TINY, tmp_path / "net.yaml", shape=(3, 32, 32))
    out = pipeline.draw(pipeline.plan(pipeline.load_spec(tmp_path / "net.yaml")), tmp_path / "deep" / "net.svg")
    root = ElementTree.fromstring(out.read_text())
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "net (resnet20)"
    assert [path.name for path in Path(out).parent.iterdir()] == ["net.svg"]


def test_the_pictures_in_the_docs_are_small_and_whole():
    docs = Path(__file__).parents[3] / "docs"
    pages = [page.read_text() for page in docs.glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"\]\((pictures/\S+\.svg)\)", page)}
    assert sorted(shown) == sorted(path.relative_to(docs).as_posix() for path in docs.glob("pictures/*.svg"))
    for name in shown:
        assert (docs / name).stat().st_size < 200_000
        assert ElementTree.parse(docs / name).getroot().get("role") == "img"


def test_an_input_that_no_spec_may_have_is_told_as_there():
    with pytest.raises(SesurgeryError, match=r"SE104.*input.shape.1: must be less than or equal to 65536"):
        pipeline.inspect(TINY, (3, 100_000, 32))
