"""Pages in headless Chromium: nothing on the console, every plot drawn, nothing wider than the window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sesurgery.reports import to_html
from sesurgery.reports.model import RunReport
from sesurgery.reports.pages import runs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here (apt-get install chromium)"),
]
LARGEST = 2_000_000
ASK = """<script>
const drawn = [...document.querySelectorAll("svg")].map(svg => {
  const boxes = [...svg.querySelectorAll("path, use")].map(part => part.getBoundingClientRect());
  const frame = svg.getBoundingClientRect();
  return {
    width: frame.width,
    height: frame.height,
    marks: boxes.filter(box => box.width + box.height > 1).length,
    colours: new Set([...svg.querySelectorAll("path, use")].map(part => getComputedStyle(part).stroke)).size,
  };
});
const root = document.documentElement;
const told = {
  drawn, wide: root.scrollWidth - root.clientWidth, paper: getComputedStyle(document.body).backgroundColor,
};
document.body.innerHTML = "<pre>FOUND" + JSON.stringify(told) + "FOUND</pre>";
</script></body>"""
DARK = "--blink-settings=preferredColorScheme=0"


def browse(page: Path, *options: str) -> tuple[str, str]:
    """The document and the console of a page that was opened."""
    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    profile = page.parent / "profile"
    done = subprocess.run(
        [*words, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def asked(html: str, folder: Path, *options: str) -> dict:
    """What a copy of a page without its policy tells of itself by a script."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", ASK)
    page = folder / "asked.html"
    page.write_text(bare, encoding="utf-8")
    document, console = browse(page, *options)
    assert console == ""
    return json.loads(document.split("FOUND")[1].replace("&amp;", "&"))


@pytest.fixture(params=["run", "runs", "study"])
def html(request: pytest.FixtureRequest, whole: RunReport, study_page: str) -> str:
    if request.param == "study":
        return study_page
    return to_html(whole) if request.param == "run" else runs.to_html((whole, whole))


def test_the_console_stays_empty_and_the_page_small(html: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(html, encoding="utf-8")
    _, console = browse(page)
    assert console == ""
    assert page.stat().st_size < LARGEST


@pytest.mark.parametrize(("window", "scheme"), [("1280,900", ""), ("390,800", DARK)], ids=["wide light", "narrow dark"])
def test_every_plot_is_drawn_and_nothing_is_wider_than_the_window(
    html: str, window: str, scheme: str, tmp_path: Path
) -> None:
    told = asked(html, tmp_path, f"--window-size={window}", *filter(None, [scheme]))
    assert len(told["drawn"]) == html.count("<svg ") > 0
    for plot in told["drawn"]:
        assert plot["width"] > 200
        assert plot["height"] > 60
        assert plot["marks"] > 10
        assert plot["colours"] > 2
    assert told["wide"] <= 0
    assert told["paper"] == ("rgb(20, 23, 28)" if scheme else "rgb(255, 255, 255)")


def test_it_can_be_printed(html: str, tmp_path: Path) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(html, encoding="utf-8")
    browse(page, f"--print-to-pdf={sheet}")
    assert sheet.read_bytes().startswith(b"%PDF")
