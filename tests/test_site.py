"""The docs as a site: it builds without a warning, every link in it leads somewhere, nothing is left out."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from fixtures.sharing import Once

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "docs" / "build_site.py"


class Links(HTMLParser):
    """The addresses that a page names, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {name for key in ("id", "name") if (name := found.get(key))}
        self.targets += [value for key in ("href", "src") if (value := found.get(key))]


def dead_links(html: Path) -> list[str]:
    """Links of the pages below a folder that lead to no file, or to no place in one."""
    pages = {page: Links(page) for page in html.rglob("*.html") if page.name != "404.html"}
    dead = []
    for page, links in pages.items():
        for target in links.targets:
            if re.match(r"\w+:|//", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / unquote(path)).resolve() if path else page
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file() or (file in pages and unquote(anchor) not in pages[file].anchors):
                dead.append(f"{page.relative_to(html)}: {target}")
    return dead


@pytest.fixture(scope="session")
def html(once: Once) -> Path:
    """The site, built as `make docs` builds it."""

    def make() -> None:
        done = subprocess.run([sys.executable, BUILD, "site"], capture_output=True, text=True, check=False)
        Path("printed.txt").write_text(f"{done.returncode}\n{done.stdout}{done.stderr}")

    return once("site", make) / "site" / "html"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(html: Path) -> None:
    printed = (html.parent.parent / "printed.txt").read_text()
    assert printed.startswith("0\n"), printed
    assert "No issues found" in printed


@pytest.mark.slow
def test_no_link_of_the_site_is_dead(html: Path) -> None:
    assert len(list(html.rglob("*.html"))) > 40
    assert dead_links(html) == []


@pytest.mark.slow
def test_the_references_are_made_of_what_the_code_says(html: Path) -> None:
    # The docstring and the signature of what users call first; a key of the schema; an option of a verb.
    api = (html / "api.html").read_text()
    assert "one-liner" in api or "every block is proved to run" in api
    assert "example_input" in api
    assert "<code>accumulate</code>" in (html / "schema.html").read_text()
    assert "--seeds" in (html / "commands.html").read_text()
    assert "planning.json" in (html / "benchmarks.html").read_text()


@pytest.mark.slow
def test_every_page_of_the_docs_is_in_the_navigation(html: Path) -> None:
    nav = set(Links(html / "decisions" / "index.html").targets)
    decisions = {path.with_suffix(".html").name for path in (ROOT / "docs" / "decisions").glob("0*.md")}
    pages = {f"../{path.with_suffix('.html').name}" for path in (ROOT / "docs").glob("*.md")}
    assert decisions | pages <= nav


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
Opened = Callable[[Path], tuple[str, list[str]]]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """`opened(file)`: what headless Chromium makes of a page once its scripts ran, and what they complain of."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    servers: list[http.server.ThreadingHTTPServer] = []

    def open_page(file: Path) -> tuple[str, list[str]]:
        handler = functools.partial(Quiet, directory=str(file.parent))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/{file.name}"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        options += ["--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        command = [str(CHROMIUM), *options, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]

    yield open_page
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_the_site_opens_in_a_browser_without_an_error(html: Path, opened: Opened) -> None:
    page, complaints = opened(html / "index.html")
    assert complaints == []
    # The theme's script has run: it marks the page, and puts the search where it was announced.
    assert re.search(r'<html[^>]* class="[^"]*\bjs\b', page)
    assert "md-search__button" in page
    assert 'aria-label="Navigation"' in page
    assert "Put channel attention" in page


@pytest.mark.slow
def test_an_error_in_a_browser_would_be_seen(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "wrong.html").write_text("<p>before</p><script>missing()</script>")
    page, complaints = opened(tmp_path / "wrong.html")
    assert "before" in page
    assert any("missing is not defined" in line for line in complaints)


def test_a_dead_link_and_a_dead_anchor_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there"></a><a href="#here"></a><img src="no.svg">')
    (tmp_path / "b.html").write_text('<a href="https://example.org"></a><a href="a.html#nowhere"></a>')
    assert sorted(dead_links(tmp_path)) == ["a.html: b.html#there", "a.html: no.svg", "b.html: a.html#nowhere"]
