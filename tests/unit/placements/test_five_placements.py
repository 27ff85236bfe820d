"""The placements of the SE paper (arXiv 1709.01507, section 6.6), each distinct on the four kinds of residual unit.

The golden file is short enough to be checked by eye against Figure 5 of the paper: for every unit and placement the
value that the block scales, and who reads the scaled value.
"""

from pathlib import Path

import pytest
import timm
import torchvision

from sesurgery.placements import PLACEMENTS
from sesurgery.placements.base import Match
from sesurgery.surgeons.fx.surgeon import FxSurgeon

GOLDEN = Path(__file__).parents[2] / "golden" / "plans" / "five_placements.txt"
FIVE = ("residual", "pre", "post", "identity", "inner")
UNITS = {
    "bottleneck, projection shortcut": (lambda: torchvision.models.resnet50(), "layer1.0"),
    "bottleneck, identity shortcut": (lambda: torchvision.models.resnet50(), "layer1.1"),
    "basic block, projection shortcut": (lambda: torchvision.models.resnet18(), "layer2.0"),
    "basic block, identity shortcut": (lambda: torchvision.models.resnet18(), "layer2.1"),
    "pre-activation unit, projection shortcut": (lambda: timm.create_model("resnetv2_50"), "stages.0.blocks.0"),
    "pre-activation unit, identity shortcut": (lambda: timm.create_model("resnetv2_50"), "stages.0.blocks.1"),
    "inverted residual": (lambda: torchvision.models.mobilenet_v2(), "features.3"),
}


def chosen(view, unit):
    """Placement -> (value, readers) within one unit."""
    found = {}
    for name in FIVE:
        for item in PLACEMENTS.load(name)().select(view):
            if isinstance(item, Match) and item.scope == unit:
                found[name] = (item.value.name, tuple(use.user for use in item.uses))
    return found


@pytest.fixture(scope="module")
def found():
    return {title: chosen(FxSurgeon((3, 64, 64)).view(make()), unit) for title, (make, unit) in UNITS.items()}


def test_the_five_placements_are_where_the_paper_puts_them(found, update_golden):
    lines = []
    for title, (_, unit) in UNITS.items():
        lines.append(f"{title} ({unit})")
        lines += [f"  {name:<9} {value} -> {', '.join(readers)}" for name, (value, readers) in found[title].items()]
    text = "\n".join(lines) + "\n"
    if update_golden:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize("title", UNITS)
def test_no_two_placements_are_the_same(found, title):
    assert set(found[title]) == set(FIVE)
    assert len(set(found[title].values())) == len(FIVE)
