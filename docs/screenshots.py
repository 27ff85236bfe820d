"""Pictures of reports for `reports.md`, by headless Chromium: the page of a run and a comparison, in light and in dark.

python docs/screenshots.py              runs a small network on the digits with SE and with ECA first, a minute or two
python docs/screenshots.py RUN RUN      of runs that are there
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from sesurgery import pipeline

PICTURES = Path(__file__).resolve().parent / "pictures"
SPEC = """\
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: BLOCK}
    at: residual
train: {data: {dataset: digits}, epochs: 6, batch_size: 32, optimizer: {lr: 0.05}}
engines:
  - {backend: onnxruntime, precision: fp32}
  - {backend: openvino, precision: fp32}
"""
WIDTH, HEIGHT = 1060, {"report": 1500, "comparison": 2150}
SCHEMES = {"light": 1, "dark": 0}
"""What Chromium calls them."""
COLOURS = 160


def shoot(browser: str, page: Path, target: Path, height: int, scheme: int) -> None:
    """The top of a page, with few colours: it is text and lines."""
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "taken.png"
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}"]
        words += [f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={taken}", page.resolve().as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        with Image.open(taken) as image:
            image.convert("RGB").quantize(COLOURS).save(target, optimize=True)


def example() -> list[Path]:
    """Two runs in the current folder."""
    workspace, made = pipeline.Workspace(), []
    for block in ("se", "eca"):
        file = Path(f"resnet8-{block}.yaml")
        file.write_text(SPEC.replace("BLOCK", block), encoding="utf-8")
        made.append(pipeline.run(pipeline.load_spec(file), workspace, file.as_posix()).applied.folder)
    return made


def main(folders: list[Path]) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium here: apt-get install chromium")
    written = pipeline.write_comparison(folders, pipeline.Workspace())
    for name, page in (("report", folders[0] / "report.html"), ("comparison", written.html)):
        for word, scheme in SCHEMES.items():
            target = PICTURES / f"{name}_{word}.png"
            shoot(browser, page, target, HEIGHT[name], scheme)
            print(f"{target} {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if sys.argv[1:]:
        main([Path(word) for word in sys.argv[1:]])
    else:
        with tempfile.TemporaryDirectory() as workplace, contextlib.chdir(workplace):
            main(example())
