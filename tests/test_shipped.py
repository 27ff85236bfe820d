"""What is shipped: the wheel and the sdist, what is in them, and that they work without the checkout."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from fixtures.sharing import Once

import sesurgery
from sesurgery.spec import zoo

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PARTS = ("sesurgery", "docs", "specs", "tests", "examples", "benchmarks", "export", "engines", ".ci")
"""Folders of a checkout that the sdist takes from; the others are what commands make."""


def clean() -> dict[str, str]:
    """An environment in which only what is installed is found."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="session")
def dist(once: Once) -> Path:
    """A folder with the sdist and the wheel that `python -m build` makes of it, and the wheel installed in `site`."""

    def make() -> None:
        # Of a copy: setuptools writes beside its sources.
        Path("source").mkdir()
        for path in ROOT.iterdir():
            if path.is_file() and path.name != ".git":
                shutil.copy(path, "source")
        for part in PARTS:
            shutil.copytree(ROOT / part, Path("source", part), ignore=shutil.ignore_patterns("__pycache__", "*.onnx*"))
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "source"]
        subprocess.run(build, check=True, capture_output=True, env=clean())
        (wheel,) = Path("dist").glob("*.whl")
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", "site"]
        subprocess.run([*install, str(wheel)], check=True, capture_output=True, env=clean())

    return once("dist", make)


def in_wheel(dist: Path) -> set[str]:
    (wheel,) = (dist / "dist").glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(dist: Path) -> Message:
    (path,) = (dist / "site").glob("*.dist-info/METADATA")
    return Parser().parsestr(path.read_text())


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package_and_nothing_else(dist: Path) -> None:
    found = in_wheel(dist)
    files = [path for path in (ROOT / "sesurgery").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} - found == set()
    assert {name.partition("/")[0] for name in found} == {"sesurgery", f"sesurgery-{sesurgery.__version__}.dist-info"}


@pytest.mark.slow
def test_the_sdist_holds_what_tests_and_docs_need(dist: Path) -> None:
    (path,) = (dist / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "Makefile",
        "constraints.txt",
        "LICENSE",
        "docs/guide.md",
        "specs/digits.yaml",
        "tests/test_shipped.py",
    ):
        assert name in found


@pytest.mark.slow
def test_the_metadata_say_what_an_index_asks_for(dist: Path) -> None:
    found = metadata(dist)
    assert (found["License-Expression"], found["Version"]) == ("Apache-2.0", sesurgery.__version__)
    versions = [text.rpartition(" ")[2] for text in found.get_all("Classifier", []) if ":: 3." in text]
    assert versions == ["3.11", "3.12", "3.13"]
    checked = [sys.executable, "-m", "twine", "check", "--strict", *map(str, (dist / "dist").iterdir())]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(dist: Path, tmp_path: Path) -> None:
    """Verbs that need the package's own specs, in one process; the package is that of the wheel."""
    code = f"""
import sesurgery
from sesurgery.cli import program
assert sesurgery.__file__.startswith({str(dist / "site")!r}), sesurgery.__file__
for words in ("list zoo", "init zoo:seresnet20", "plan zoo:seresnet20", "plan specs/seresnet20.yaml"):
    program(words.split(), standalone_mode=False)
program(["check", "demo:digits"], standalone_mode=False)
"""
    environment = {**clean(), "PYTHONPATH": str(dist / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "SE-ResNet-20" in done.stdout
    assert done.stdout.count("9 sites") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["specs"]


BRIEF = """version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8}}
input: {shape: [3, 8, 8]}
surgery: [{insert: {block: se, reduction: 4}, at: residual}]
train: {data: digits, epochs: 1, threads: 1}
engines: [{backend: onnxruntime, precision: fp32, batch: {min: 1, opt: 1, max: 32}}]
latency: {batch: 1, rounds: 10, placements: 4, half_width: null, repeats: 2, warmup_seconds: 0, threads: 1}
"""


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_in_an_empty_folder(dist: Path, tmp_path: Path) -> None:
    """The whole command in a process of its own, on small networks; its dependencies are those installed here."""
    specs, empty = tmp_path / "specs", tmp_path / "empty"
    for folder in (specs, empty):
        folder.mkdir()
    for name in ("small", "large"):
        (specs / f"{name}.yaml").write_text(BRIEF)
    command = [sys.executable, "-m", "sesurgery", "demo", "--seeds", "1"]
    command += [word for name in ("small", "large") for word in (f"--{name}", str(specs / f"{name}.yaml"))]
    environment = {**clean(), "PYTHONPATH": str(dist / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the report, for a browser: runs/small/report.html" in done.stdout
    assert (empty / "runs" / "small" / "report.html").is_file()


def reachable() -> bool:
    """Whether pip can ask an index, with the settings of this machine."""
    ask = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-input", "--retries", "0", "--dest"]
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([*ask, folder, "colorlog"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_every_extra_resolves(dist: Path) -> None:
    """By a dry run of pip beside what is installed; where no index can be asked, it is skipped.

    An index need not have every package: what it lacks is told as skipped, after all other extras were tried.
    """
    if not reachable():
        pytest.skip("pip reaches no index here")
    (wheel,) = (dist / "dist").glob("*.whl")
    ask = [sys.executable, "-m", "pip", "install", "--dry-run", "-q", "--no-input", "--only-binary", ":all:"]
    # Its parts come as sources alone: pycuda is compiled where CUDA is, and the others fetch wheels from NVIDIA.
    extras = [name for name in SETUP["options.extras_require"] if name not in ("tensorrt", "all")]

    def lacking(names: list[str]) -> set[str]:
        """What the index lacks for these extras: what fits together fits alone, and what does not is halved."""
        wanted = f"{wheel}[{','.join(names)}]"
        done = subprocess.run([*ask, wanted], capture_output=True, text=True, env=clean(), check=False)
        if done.returncode == 0:
            return set()
        if len(names) > 1:
            return lacking(names[::2]) | lacking(names[1::2])
        absent = re.findall(r"No matching distribution found for (\S+)", done.stderr)
        assert absent, f"{names[0]}: {done.stderr}"
        return set(absent)

    if absent := lacking(extras):
        pytest.skip(f"the index has no {', '.join(sorted(absent))}")


def test_all_is_every_extra_but_those_for_work_on_the_package() -> None:
    extras = SETUP["options.extras_require"]
    named = re.findall(r"sesurgery\[([\w,-]+)\]", extras["all"])[0].split(",")
    assert sorted(named) == sorted(set(extras) - {"all", "dev", "docs"})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and what it installs from, and a pip in its environment that says what it is told."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    pip = tmp_path / ".venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/sh\necho "WARNING: looked at $PIP_SAID"\necho "pip $*" >>pip.calls\nexit "$PIP_CODE"\n')
    pip.with_name("python").symlink_to(sys.executable)
    pip.chmod(0o755)
    return tmp_path


def install(checkout: Path, code: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIP_CODE": str(code), "PIP_SAID": "forty places"}
    command = ["make", "--no-print-directory", ".venv/.ready"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_installing_says_one_line_and_is_done_once(checkout: Path) -> None:
    done = install(checkout, 0)
    assert done.returncode == 0, done.stderr
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("installing into .venv with ")
    assert "-c constraints.txt -e .[dev]" in (checkout / "pip.calls").read_text()
    assert install(checkout, 0).returncode == 0
    assert len((checkout / "pip.calls").read_text().splitlines()) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_installing_shows_pips_words_where_it_fails(checkout: Path) -> None:
    done = install(checkout, 1)
    assert done.returncode != 0
    assert "WARNING: looked at forty places" in done.stderr
    assert "nothing was installed" in done.stderr
    assert not (checkout / ".venv" / ".ready").exists()


def test_the_demos_specs_are_those_of_the_checkout_but_for_what_makes_them_brief() -> None:
    assert zoo.names("demo") == ("digits", "seresnet50")
    for name in zoo.names("demo"):
        ours, theirs = (
            yaml.safe_load(path.read_text()) for path in (zoo.path_of(name, "demo"), ROOT / "specs" / f"{name}.yaml")
        )
        for brief in ("input", "latency"):
            del ours[brief], theirs[brief]
        assert ours == theirs
    for name in zoo.names():
        assert zoo.path_of(name).read_bytes() == (ROOT / "specs" / "zoo" / f"{name}.yaml").read_bytes()


def test_the_version_is_written_in_one_place() -> None:
    assert SETUP["metadata"]["version"] == "attr: sesurgery.__version__"
    files = [ROOT / name for name in ("pyproject.toml", "setup.cfg", "README.md", "Dockerfile", "docs/install.md")]
    assert [
        path.name for path in files if re.search(rf"\bsesurgery\W+{re.escape(sesurgery.__version__)}", path.read_text())
    ] == []


def test_every_direct_dependency_is_pinned_for_continuous_integration() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    extras = SETUP["options.extras_require"]
    needed = [
        SETUP["options"]["install_requires"],
        *(extras[name] for name in ("openvino", "docs", "dev", "huggingface")),
    ]
    lines = [line.strip() for text in needed for line in text.splitlines()]
    names = {re.split(r"[<>=\[;]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    assert names - pinned - {"sesurgery"} == set()


def test_the_page_on_installing_names_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    assert [name for name in SETUP["options.extras_require"] if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.tensorrt"])
def test_a_dockerfile_has_no_fault_that_hadolint_finds(name: str) -> None:
    done = subprocess.run([TOOLS / "hadolint", ROOT / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.tensorrt"])
def test_a_dockerfile_copies_what_is_there_and_runs_as_nobody_in_particular(name: str) -> None:
    text = (ROOT / name).read_text()
    sources = re.findall(r"^COPY (?!--)(\S+)", text, re.M)
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert re.findall(r"^USER (.+)$", text, re.M) == ["1000:1000"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert [pin for pin in re.findall(r"\"(torch\w*==[\d.]+)\+cpu\"", text) if pin not in pins] == []
