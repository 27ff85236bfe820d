"""What a screen reader, a keyboard and eyes that tell few colours apart find on a page."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from test_page import parse

from sesurgery.reports import to_html
from sesurgery.reports.model import RunReport
from sesurgery.reports.pages import page, runs

CSS = (Path(page.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
SCHEMES = dict(zip(("light", "dark", "print"), re.findall(r":root \{(.*?)\}", CSS, re.DOTALL), strict=True))
TEXT = ("ink", "muted", "baseline", "good", "bad", "open")
DRAWN = ("candidate", "baseline", "accent")
SHIFTS = {
    # Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009: what an eye without one kind of cone sees, in linear RGB.
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def colours(scheme: str) -> dict[str, np.ndarray]:
    """The linear RGB of each variable."""
    found = {}
    for name, value in re.findall(r"--(\w+): #([0-9a-f]{3,6})\b", SCHEMES[scheme]):
        digits = value if len(value) == 6 else "".join(2 * digit for digit in value)
        channels = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
        found[name] = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return found


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """By WCAG 2.2."""
    high, low = sorted((float(np.dot([0.2126, 0.7152, 0.0722], colour)) for colour in (one, other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(colour: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a linear RGB colour."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ colour.clip(0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_has_the_contrast_that_is_asked_of_text_and_lines_that_of_lines(scheme: str) -> None:
    found = colours(scheme)
    for behind in ("paper", "panel"):
        for name in TEXT:
            assert contrast(found[name], found[behind]) >= 4.5, (name, behind)
    for name in DRAWN:
        assert contrast(found[name], found["paper"]) >= 3, name


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("eye", SHIFTS)
def test_the_colours_of_engines_differ_for_every_eye(scheme: str, eye: str) -> None:
    seen = {name: lab(np.array(SHIFTS[eye]) @ colour) for name, colour in colours(scheme).items() if name in DRAWN}
    for one, other in itertools.combinations(DRAWN, 2):
        # 2.3 is the least that can be seen side by side.
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


@pytest.fixture(params=["run", "runs", "study"])
def shown(request: pytest.FixtureRequest, whole: RunReport, study_page: str) -> str:
    if request.param == "study":
        return study_page
    return to_html(whole) if request.param == "run" else runs.to_html((whole, whole))


def test_every_table_has_a_caption_and_headers_with_their_scope(shown: str) -> None:
    tables = re.findall(r"<table>.*?</table>", shown, re.DOTALL)
    assert tables
    for table in tables:
        assert re.search(r"<caption>[^<]+</caption>", table)
        assert "<th>" not in table
        body = table[table.index("<tbody>") :]
        assert body.count("<tr") == body.count('<th scope="row"')


def test_every_plot_has_a_text_and_every_wide_table_can_be_scrolled_by_keyboard(shown: str) -> None:
    found = parse(shown).found
    images = [attributes for _, attributes in found if attributes.get("role") == "img"]
    assert len(images) == shown.count("<svg ")
    assert all((attributes.get("aria-label") or "").startswith("Plot: ") for attributes in images)
    scrolled = [attributes for _, attributes in found if attributes.get("class") == "scroll"]
    assert all(attributes.get("tabindex") == "0" and attributes.get("aria-label") for attributes in scrolled)


def test_headings_skip_no_level_and_landmarks_are_there(shown: str) -> None:
    tags = [tag for tag, _ in parse(shown).found]
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert (tags.count("h1"), tags.count("main"), tags.count("header"), tags.count("nav")) == (1, 1, 1, 1)
    assert '<html lang="en">' in shown
    assert '<a class="skip" href="#content">' in shown


def test_the_focus_is_seen() -> None:
    assert re.search(r":focus-visible \{ outline: 3px solid", CSS)
    assert "outline: none" not in CSS
