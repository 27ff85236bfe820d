from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from sesurgery.reports import to_html
from sesurgery.reports.model import BatchParity, EngineSection, RunReport
from sesurgery.reports.plots import latency as latency_plots
from sesurgery.spec.parity import Tolerance
from sesurgery.verification.cost import BlockPrice, Prices, Seconds
from sesurgery.verification.drift import Drift, Repair, TapError
from sesurgery.verification.estimates import summarise
from sesurgery.verification.flips import FlippedSample, picture
from sesurgery.verification.parity import ParityReport, compare

HOSTILE = "<script>alert('x')</script> \"&$\\frac{1}{2}$ #010203 1.2345 v"


class Tags(HTMLParser):
    """Collects opening tags with their attributes and the ids, and checks that tags close in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    return tags


def text_of(page: str) -> str:
    return page.replace("\u00a0", " ")


def test_the_page_loads_nothing(run: RunReport) -> None:
    page = to_html(run)
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", page)
    tags = parse(page).found
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "embed"}
    assert not [attributes for _, attributes in tags if "src" in attributes]
    assert all(value is None or value.startswith("#") for _, a in tags for k, value in a.items() if k.endswith("href"))


def test_every_plot_is_on_the_page_with_a_title_and_a_way_to_read_it(run: RunReport) -> None:
    page = to_html(run)
    # The learning curve, four comparisons, the tax, and two plots of each of two races.
    assert page.count("<svg ") == page.count("<figcaption>") == page.count('role="img"') == 10
    assert all(words in page for words in ("time of one run (ms)", "median of the round (ms)", "held-out top-1 (%)"))


def test_ids_are_unique_and_every_reference_in_a_plot_resolves(run: RunReport) -> None:
    page = to_html(run)
    ids = [attributes["id"] for _, attributes in parse(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)) <= {(i, "") for i in ids} | {("", i) for i in ids}


def test_plots_take_every_colour_from_the_style_sheet(run: RunReport) -> None:
    page = to_html(run)
    plots = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}\b", plots)
    style = page[: page.index("</style>")]
    assert all(f"--{name}:" in style for name in re.findall(r"var\(--(\w+)\)", plots))


def test_a_hostile_name_is_text_everywhere(run: RunReport) -> None:
    network = dataclasses.replace(
        run.network, model=HOSTILE, sites=(dataclasses.replace(run.network.sites[0], key=HOSTILE),)
    )
    engines = tuple(dataclasses.replace(engine, backend=HOSTILE, file=HOSTILE) for engine in run.engines)
    race = run.latency[0]
    named = dataclasses.replace(race.report, candidate=dataclasses.replace(race.report.candidate, name=HOSTILE))
    latency = (dataclasses.replace(race, title=HOSTILE, mode=HOSTILE, report=named),)
    page = to_html(
        dataclasses.replace(run, title=HOSTILE, command=HOSTILE, network=network, engines=engines, latency=latency)
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    # Inside the plots as well, and there as the name it is, not as a formula.
    plots = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "&lt;script&gt;" in plots
    assert "$\\frac{1}{2}$ #010203 1.2345 v</text>" in plots
    parse(page)


def test_the_top_of_the_page_holds_the_key_figures(run: RunReport) -> None:
    page = text_of(to_html(run))
    top = page[: page.index('id="network"')]
    for words in ("1 of 3 engines fell short", "+0.8 %", "98.6 %", "cannot run here: no CUDA driver", "95 % interval"):
        assert words in top


def test_a_run_without_training_engines_or_races_still_makes_a_page(run: RunReport) -> None:
    network = dataclasses.replace(run.network, sites=())
    bare = dataclasses.replace(run, network=network, training=None, engines=(), latency=())
    page = to_html(bare)
    parse(page)
    assert "No engine was built" in page
    assert "<svg" not in page


def test_an_engine_timed_alone_has_its_plots_and_no_tax(run: RunReport) -> None:
    alone = dataclasses.replace(run.latency[0].report, baseline=None, tax=None)
    page = to_html(dataclasses.replace(run, engines=(), latency=(dataclasses.replace(run.latency[0], report=alone),)))
    assert page.count("<svg ") == 3
    assert "<strong>SE tax" not in page


def test_stalled_runs_are_counted_in_words_rather_than_drawn(run: RunReport) -> None:
    race = run.latency[0]
    kept = np.array(race.report.candidate.round_seconds)
    kept[:, 0] *= 10
    stalled = dataclasses.replace(race.report.candidate, round_seconds=tuple(map(tuple, kept.tolist())),
                                  stats=summarise(kept.ravel(), 1))  # fmt: skip
    report = dataclasses.replace(race.report, candidate=stalled)
    plot = latency_plots.spread("x", report)
    assert "60 slower runs lie beyond the right edge" in plot.reading


@pytest.mark.parametrize("samples", [1, 4000])
def test_a_comparison_of_any_size_is_drawn_with_few_dots(run: RunReport, samples: int) -> None:
    page = to_html(with_parity(run, noise_of(samples, 1e-3)))
    assert page.count("<use") < 2600


@pytest.mark.parametrize(("noise", "finding"), [(0.0, "equal to the last bit"), (np.nan, "NaN or infinity in")])
def test_extreme_comparisons_are_said_in_words(run: RunReport, noise: float, finding: str) -> None:
    assert finding in to_html(with_parity(run, noise_of(20, noise)))


def test_drawing_leaves_the_users_matplotlib_settings_alone(run: RunReport) -> None:
    before = dict(matplotlib.rcParams)
    to_html(run)
    assert dict(matplotlib.rcParams) == before


def test_the_same_report_gives_the_same_page(run: RunReport) -> None:
    assert to_html(run) == to_html(run)


def test_importing_reports_brings_in_neither_torch_nor_matplotlib() -> None:
    code = "import sys, sesurgery.reports; print(sorted({'torch', 'matplotlib', 'onnxruntime'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def noise_of(samples: int, size: float) -> ParityReport:
    generator = np.random.default_rng(0)
    reference = generator.normal(0, 3, (samples, 5))
    return compare(reference, reference + size, reference.argmax(axis=1), Tolerance(max_abs=1.0))


def with_parity(run: RunReport, report: ParityReport) -> RunReport:
    engine = EngineSection("onnxruntime", "fp32", "x.ort", 1.0, {}, (BatchParity(1, report),))
    return dataclasses.replace(run, training=None, engines=(engine,), latency=())


def test_prices_and_drift_have_their_plots_and_tables(run: RunReport) -> None:
    block = BlockPrice("se/a[0]", "a.se", 1, 8, 4, 4, Seconds(2e-3, 1e-3, 3e-3), 100, 200, 1e-3, 6, 4096)
    priced = Prices((block,), 20e-3, Seconds(2e-3, 1e-3, 3e-3), 1, 2, "onnxruntime fp32", True)
    errors = (TapError("se/a[0]", "a.se", "se/a[0]", 1e-4, 1.0), TapError("logits", "", None, float("inf"), 1.0, 2))
    engine = dataclasses.replace(
        run.engines[0], drift=Drift(errors, 0.03), repairs=(Repair("fp32", {"engines[0].precision": "fp32"}),)
    )
    page = to_html(dataclasses.replace(run, prices=(priced,), engines=(engine,)))
    assert "What each block costs" in page
    assert "The dearest block is se/a[0]" in page
    assert "first over tolerance: logits" in page
    assert "repaired by fp32; in the spec: engines[0].precision: &#34;fp32&#34;" in page


def test_flipped_samples_are_shown_and_need_no_network(run: RunReport) -> None:
    png = picture(np.zeros((1, 8, 8)))
    flip = FlippedSample(7, "three", "three", "<eight>", 0.9, 0.6, png)
    lost = FlippedSample(8, "one", "one", None, 0.8, 0.0, png)
    page = to_html(dataclasses.replace(run, engines=(dataclasses.replace(run.engines[0], flipped=(flip, lost)),)))
    assert page.count("data:image/png;base64,") == 2
    assert "&lt;eight&gt;" in page
    assert "NaN or infinity" in page
    assert "img-src data:" in page
