"""Ends commands at every file they put in place, and looks at what is left.

    python benchmarks/faults.py               # what benchmarks/results/faults.json does not have yet
    python benchmarks/faults.py lower bench   # these rows, again
    python benchmarks/faults.py --table       # the table of docs/faults.md, from the results

Every verb that writes files is run in a process of its own: ended by kill -9, SIGTERM or SIGINT before each rename that
it makes, once it has opened a file to write to in place, and after its end (`run` and `demo`, which are made of the
other verbs, at eight of these points, spread evenly); on a disk that is full (with several amounts left) or read-only;
beside a second process that does the same; and with a clock that jumped: the workspace's files are of next year, of
last year and of 1970. After each: what was there before is there and whole, what the command
does not write has the same bytes, the same command given again succeeds, and no temporary file is left. Every cell is
tried at least three times and kept at once. Disks need root, for a tmpfs of their own.

The processes are forks of one that has imported the package; workspaces lie in memory where /dev/shm is there. The data
set of `data fetch` is one of ten images, from a server on this machine.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import functools
import gc
import gzip
import hashlib
import http.server
import importlib
import io
import itertools
import json
import os
import pkgutil
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
NETWORK = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
        return self.fc(x.mean((2, 3)))
"""
SPEC = """\
version: 1
model: {source: python, name: "net:Net"}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: {dataset: digits, held_out: 0.1}, epochs: 2, batch_size: 512, threads: 1}
engines:
  - {backend: onnxruntime, precision: fp32}
parity: {batches: [64]}
latency: {batch: 1, rounds: 10, placements: 4, half_width: null, repeats: 2, warmup_seconds: 0, threads: 1}
"""
FILES = {
    "tiny.yaml": SPEC,
    "large.yaml": SPEC,
    "study.yaml": SPEC.replace("epochs: 2", "epochs: 1")
    + 'study: {axes: {"surgery[0].insert.reduction": [2]}, seeds: [0]}\n',
    "remove.yaml": "version: 1\nmodel: {source: onnx, name: export/tiny.onnx}\ninput: {shape: [1, 8, 8]}\n"
    "surgery: [{remove: {block: se}}]\n",
}
ENGINE = "engines/tiny.onnxruntime.fp32.onnx"
KILLS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
LEFT = (0, 16 << 10, 128 << 10, 1 << 20)
"""Bytes that a full disk still has."""
TRIES = 3
YEAR = 365 * 86_400
PATIENCE = 300
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Verb:
    """A command and the state of the workspace it is given in.

    `twice`: in a workspace where it has been given before, so that it replaces what it wrote. `resume` is how to go on
    where it says so. `discards` is a folder whose files it is asked to throw away. Of a command that is made of others
    of this table, `most` points are struck at, spread evenly.
    """

    words: str
    state: str
    twice: bool = False
    resume: str | None = None
    discards: str | None = None
    most: int | None = None


VERBS = {
    "init": Verb("init timm:resnet10t -o new.yaml --shape 3,32,32 --force", "empty", twice=True),
    "plan --svg": Verb("plan tiny.yaml --svg plan.svg", "empty", twice=True),
    "schema -o": Verb("schema -o schema.json", "empty", twice=True),
    "data fetch": Verb("data fetch mnist", "empty"),
    "apply": Verb("apply tiny.yaml", "empty"),
    "apply --onnx (insert)": Verb(
        "apply tiny.yaml --onnx export/tiny.plain.onnx -o inserted.onnx", "built", twice=True
    ),
    "apply --onnx (remove)": Verb("apply remove.yaml -o removed.onnx", "built", twice=True),
    "train": Verb("train runs/tiny", "applied", resume="train runs/tiny --resume"),
    "train SPEC": Verb("train tiny.yaml", "empty"),
    "train --resume": Verb("train runs/tiny --resume", "stopped"),
    "train --restart": Verb("train runs/tiny --restart", "built", discards="runs/tiny/train/"),
    "evaluate --picture": Verb("evaluate runs/tiny --picture confusion.png --force", "built", twice=True),
    "compare --picture": Verb("compare runs/tiny runs/tiny --picture curves.png --force", "built", twice=True),
    "gates --picture": Verb("gates runs/tiny --picture gates.png --force", "built", twice=True),
    "export": Verb("export runs/tiny", "built"),
    "lower": Verb("lower export/tiny.onnx -o lowered.onnx --for onnxruntime", "built", twice=True),
    "build-engine": Verb("build-engine runs/tiny --again", "built"),
    "verify": Verb(f"verify {ENGINE}", "built", twice=True),
    "verify --drift": Verb(f"verify {ENGINE} --drift", "built", twice=True),
    "bench": Verb(f"bench {ENGINE}", "built", twice=True),
    "bench --per-block": Verb(f"bench {ENGINE} --per-block", "built"),
    "report": Verb(
        "report runs/tiny --fail-if tax>1000% --junit limits.xml --github-summary job.md", "timed", twice=True
    ),
    "report (of two)": Verb("report runs/tiny runs/tiny-2", "timed", twice=True),
    "package": Verb(f"package {ENGINE} --triton models", "built", twice=True),
    "study": Verb("study study.yaml", "empty"),
    "run": Verb("run tiny.yaml", "empty", most=8),
    "demo": Verb("demo --small tiny.yaml --large large.yaml --seeds 1", "empty", most=8),
}
STEPS = {
    "empty": (),
    "applied": ("apply tiny.yaml",),
    "built": ("train runs/tiny", "export --plain runs/tiny", "build-engine runs/tiny"),
    "timed": (f"bench {ENGINE}", "train tiny.yaml"),
}
"""Each state of a workspace is the one before, and these commands."""


@dataclass
class Cell:
    """What was tried of a verb in one way: how often, and what was wrong."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "not tried" if not self.tried else f"{self.tried}" + (f", {len(self.wrong)} WRONG" if self.wrong else "")


@dataclass(frozen=True)
class Place:
    """A workspace; and beside it, on a disk that nobody fills, what its commands say and their number of points."""

    folder: Path
    aside: Path

    @property
    def said(self) -> str:
        log = self.aside / "log"
        return log.read_text(errors="replace") if log.is_file() else ""

    @property
    def points(self) -> int:
        return int((self.aside / "points").read_text())

    def start(self, words: str, strike: Callable[[], None] | None = None, at: int = -1) -> int:
        """Start a command in a fork of this process, which has the slow imports behind it; gives its process id."""
        if child := os.fork():
            return child
        # Whatever happens here, the child must not go on as the parent.
        code = 99
        try:
            with (self.aside / "log").open("ab", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(self.folder)
            count = _armed(strike, at, self.folder)
            code = _done(words)
            # A command that was struck already has its code.
            if strike is not None and code == 0 and at == count():
                # The verb has given its handlers back: what comes now ends the interpreter as a signal does.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                strike()
            (self.aside / "points").write_text(str(count()))
        finally:
            os._exit(code)

    def run(self, words: str, strike: Callable[[], None] | None = None, at: int = -1) -> int:
        return ended(self.start(words, strike, at))


def _done(words: str) -> int:
    """The exit code of the program in this process."""
    from sesurgery.cli import main

    sys.argv = ["sesurgery", *words.split(" ")]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    return 99


def ended(child: int) -> int:
    """The exit code of a process, negative where a signal ended it, as subprocess counts; 98 for one that hangs."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 98


def _armed(strike: Callable[[], None] | None, at: int, folder: Path) -> Callable[[], int]:
    """Strike at the point with this number: before a rename, or once a file is first opened to be written in place."""
    done, real_open, rename, replace = 0, builtins.open, os.rename, os.replace
    begun = set[object]()

    def point(file: str | os.PathLike[str]) -> None:
        nonlocal done
        path = Path(os.path.abspath(file))
        # What is temporary has its point when it is put in place.
        if path.is_relative_to(folder) and not any(part.endswith(".tmp") for part in path.parts):
            done += 1
            if strike is not None and done - 1 == at:
                strike()

    def put(real: Callable[..., None], source: str, target: str, **named: object) -> None:
        point(target)
        real(source, target, **named)

    def opened(file: object, mode: str = "r", *arguments: object, **named: object) -> object:
        stream = real_open(file, mode, *arguments, **named)  # type: ignore[call-overload]
        if set(mode) & set("wax+") and isinstance(file, str | os.PathLike) and file not in begun:
            begun.add(file)
            point(file)
        return stream

    os.rename, os.replace = partial(put, rename), partial(put, replace)
    builtins.open = io.open = opened  # type: ignore[assignment]
    return lambda: done


def digests(folder: Path) -> dict[str, str]:
    """Every file of a workspace but locks, with its digest."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def valid(folder: Path) -> set[str]:
    """The artefacts of a workspace that are what their manifests say."""
    from sesurgery.diagnostics import SesurgeryError
    from sesurgery.workspace import require_intact

    found = set()
    with contextlib.chdir(folder):
        for manifest in Path().rglob("*.manifest.json"):
            artefact = manifest.with_name(manifest.name.removesuffix(".manifest.json"))
            with contextlib.suppress(SesurgeryError):
                require_intact(artefact)
                found.add(artefact.as_posix())
    return found


def whole(path: Path) -> bool:
    """Whether a file is complete, where its kind can tell."""
    import yaml
    from PIL import Image

    ends = {".html": "</html>", ".svg": "</svg>", ".xml": "</testsuite>"}
    try:
        if path.suffix in ends:
            return path.read_text().rstrip().endswith(ends[path.suffix])
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".yaml":
            yaml.safe_load(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".ckpt":
            import torch

            torch.load(path, weights_only=True)
        else:
            return path.stat().st_size > 0 or path.suffix not in (".onnx", ".safetensors", ".pbtxt", ".md")
    except Exception:
        return False
    return True


@dataclass(frozen=True)
class Before:
    """A verb, the workspace it is given in, and which files of it the verb leaves alone."""

    verb: Verb
    state: Path
    artefacts: set[str]
    files: set[str]
    untouched: dict[str, str]
    points: int

    def judge(self, place: Place, code: int, allowed: tuple[int, ...]) -> list[str]:
        """What is wrong with a workspace after a command was ended in it; the command is given again."""
        folder = place.folder
        wrong = [] if code in allowed else [f"exit {code}"]
        wrong += ["a traceback"] if "Traceback" in place.said else []
        wrong += ["exit 1 without an error"] if code == 1 and "error[SE" not in place.said else []
        now, artefacts = digests(folder), valid(folder)
        wrong += [f"{path} changed" for path, digest in self.untouched.items() if now.get(path) != digest]
        wrong += [f"{path} lost" for path in sorted(self.files - now.keys())]
        wrong += [f"{path} cut off" for path in sorted(self.files & now.keys()) if not whole(folder / path)]
        # An export or an engine that was being replaced is made again by the same command, and refused until then.
        gone = sorted(self.artefacts - artefacts)
        wrong += [f"{path} lost" for path in gone if path.startswith(("runs/", "studies/"))]
        again = place.run(self.verb.words)
        if again == 1 and self.verb.resume:
            again = place.run(self.verb.resume)
            if again == 1:
                # It had ended well: a trained run is not trained again without --restart.
                again = 0 if "is trained already" in place.said else 1
        if again:
            wrong.append(f"given again: exit {again}: {place.said[-300:]}")
        wrong += [f"{path} not made again" for path in sorted(set(gone) - valid(folder))]
        wrong += [f"{path} cut off at the end" for path in digests(folder) if not whole(folder / path)]
        wrong += [f"{path.relative_to(folder)} left behind" for path in folder.rglob("*.tmp")]
        return wrong


@contextlib.contextmanager
def copied(state: Path, where: Path, on: Path | None = None) -> Iterator[Place]:
    """A copy of a workspace, `on` another disk if one is named, gone after the block."""
    aside = Path(tempfile.mkdtemp(dir=where))
    folder = (on or aside) / "w"
    shutil.copytree(state, folder, copy_function=shutil.copy2)
    try:
        yield Place(folder, aside)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(aside)


@contextlib.contextmanager
def disk(where: Path) -> Iterator[Path | None]:
    """A disk of its own to fill and to lock, or None where it cannot be had."""
    root = Path(tempfile.mkdtemp(dir=where))
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(root)], capture_output=True)
    try:
        yield root if made.returncode == 0 else None
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(root)], check=True)
        root.rmdir()


def strikes(points: int, most: int | None) -> list[int]:
    """The points at which a verb is struck, and after its end: all, `TRIES` at the least, or `most` spread evenly."""
    count = points + 1
    if most is not None and count > most:
        return [round(index * points / (most - 1)) for index in range(most)]
    return list(itertools.islice(itertools.cycle(range(count)), max(TRIES, count)))


def struck(before: Before, where: Path, number: int) -> Cell:
    """End a verb by a signal at its points."""
    cell, points = Cell(), before.points
    allowed = -signal.SIGKILL if number == signal.SIGKILL else 128 + number
    for at in strikes(points, before.verb.most):
        with copied(before.state, where) as place:
            code = place.run(before.verb.words, lambda: os.kill(os.getpid(), number), at)
            # After the last point, a command may have ended before it sees the signal.
            wrong = before.judge(place, code, (allowed, 0, -number) if at == points else (allowed,))
            cell.tried += 1
            cell.wrong += [f"point {at}: {what}" for what in wrong]
    return cell


def full(before: Before, where: Path) -> Cell:
    """Run a verb on a disk with little left, then on one with room."""
    cell = Cell()
    for left in LEFT:
        with disk(where) as root:
            if root is None:
                return cell
            with copied(before.state, where, root) as place:
                filler = root / "filler"
                free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
                with filler.open("wb") as stream:
                    os.posix_fallocate(stream.fileno(), 0, max(1, free - left))
                code = place.run(before.verb.words)
                filler.unlink()
                cell.tried += 1
                cell.wrong += [f"{left} bytes left: {what}" for what in before.judge(place, code, (0, 1))]
    return cell


def locked(before: Before, where: Path) -> Cell:
    """Run a verb on a read-only disk, then on the same one where it can write."""
    cell = Cell()
    for _ in range(TRIES):
        with disk(where) as root:
            if root is None:
                return cell
            with copied(before.state, where, root) as place:
                subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
                code = place.run(before.verb.words)
                subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
                cell.tried += 1
                cell.wrong += before.judge(place, code, (1,))
    return cell


def doubled(before: Before, where: Path) -> Cell:
    """Run a verb twice at once in one workspace."""
    cell = Cell()
    for _ in range(TRIES):
        with copied(before.state, where) as place:
            codes = sorted(ended(child) for child in [place.start(before.verb.words) for _ in range(2)])
            cell.tried += 1
            wrong = [] if codes in ([0, 0], [0, 1]) else [f"exits {codes}"]
            cell.wrong += wrong + before.judge(place, codes[1], (0, 1))
    return cell


def jumped(before: Before, where: Path) -> Cell:
    """Run a verb where the clock has jumped since the files were written."""
    cell = Cell()
    for by in (YEAR, -YEAR, -time.time()):
        with copied(before.state, where) as place:
            for path in (*place.folder.rglob("*"), place.folder):
                then = max(0.0, path.stat().st_mtime + by)
                os.utime(path, (then, then))
            code = place.run(before.verb.words)
            cell.tried += 1
            cell.wrong += [f"files {by:+.0f} s: {what}" for what in before.judge(place, code, (0,))]
    return cell


WAYS: dict[str, Callable[[Before, Path], Cell]] = {
    **{way: partial(struck, number=number) for way, number in KILLS.items()},
    "full disk": full,
    "read-only disk": locked,
    "two processes": doubled,
    "clock": jumped,
}


class States:
    """Workspaces in which commands are given, each made when it is first asked for."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.made: dict[str, Path] = {}

    def get(self, name: str) -> Path:
        if name not in self.made:
            self.made[name] = self._stopped() if name == "stopped" else self._after(name)
        return self.made[name]

    def before(self, verb: Verb) -> Before:
        """The state before a verb, with what a trial is compared with."""
        state = self.get(verb.state)
        if verb.twice:
            state = self._given(state, verb.words)
        with copied(state, self.where) as place:
            code = place.run(verb.words)
            assert code == 0, place.said
            there, after = digests(state), digests(place.folder)
            kept = {path: digest for path, digest in there.items() if not path.startswith(verb.discards or "//")}
            untouched = dict(kept.items() & after.items())
            return Before(verb, state, valid(state), set(kept), untouched, place.points)

    def _after(self, name: str) -> Path:
        if name == "empty":
            folder = self.where / "states" / "empty"
            folder.mkdir(parents=True)
            for file, text in FILES.items():
                (folder / file).write_text(text)
            return folder
        earlier = self.get(list(STEPS)[list(STEPS).index(name) - 1])
        return self._given(earlier, *STEPS[name])

    def _given(self, state: Path, *commands: str) -> Path:
        """A copy of a workspace after these commands."""
        aside = Path(tempfile.mkdtemp(dir=self.where / "states"))
        place = Place(aside / "w", aside)
        shutil.copytree(state, place.folder, copy_function=shutil.copy2)
        for words in commands:
            assert place.run(words) == 0, (words, place.said)
        return place.folder

    def _stopped(self) -> Path:
        """A run whose training was stopped after its first epoch."""
        folder = self._given(self.get("applied"))
        place = Place(folder, folder.parent)
        code = place.run("train runs/tiny", lambda: os.kill(os.getpid(), signal.SIGTERM), at=STOPPED_AT)
        assert code == 128 + signal.SIGTERM, (code, place.said)
        assert (folder / "runs/tiny/train/last.ckpt").is_file(), place.said
        return folder


STOPPED_AT = 9
"""The point of `train` at which a training is stopped, to be resumed."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is said of a request."""


@contextlib.contextmanager
def published(where: Path) -> Iterator[None]:
    """MNIST of ten images, at an address of this machine, where torchvision looks for it."""
    from torchvision import datasets

    folder, resources = where / "server", []
    folder.mkdir()
    for start in ("train", "t10k"):
        for name, content in (
            (f"{start}-images-idx3-ubyte.gz", struct.pack(">IIII", 0x803, 10, 28, 28) + bytes(10 * 28 * 28)),
            (f"{start}-labels-idx1-ubyte.gz", struct.pack(">II", 0x801, 10) + bytes(range(10))),
        ):
            (folder / name).write_bytes(gzip.compress(content))
            resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        datasets.MNIST.mirrors, datasets.MNIST.resources = [f"http://127.0.0.1:{server.server_port}/"], resources
        yield
        server.shutdown()


def imported() -> None:
    """Import all of the package that can be imported here, so that forks start at once."""
    import lightning.pytorch.loggers  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import onnxruntime  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    import torch.utils.tensorboard
    import torchmetrics.classification  # noqa: F401
    from torch.onnx._internal.exporter import _registration

    import sesurgery

    for module in pkgutil.walk_packages(sesurgery.__path__, "sesurgery.", onerror=lambda _: None):
        if not module.name.endswith("__main__") and not module.name.startswith("sesurgery.models."):
            with contextlib.suppress(ImportError, OSError):
                importlib.import_module(module.name)
    # Prices go on being measured until they are exact or a minute and a half is over; here they need not be exact.
    prices = importlib.import_module("sesurgery.pipeline.bench.prices")
    prices.PER_BLOCK = prices.PER_BLOCK.model_copy(update={"more_seconds": 0, "half_width": None})
    # A second of every export, and always the same.
    registry = _registration.ONNXRegistry
    registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))
    # The first export of a process makes torch's tables of operators.
    example = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.ReLU()).eval()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(example, (torch.zeros(2, 1, 8, 8),), dynamo=True, optimize=True, dynamic_shapes=shapes)
    # What is there by now is not looked through in every fork, which would copy its pages.
    gc.freeze()


def commit() -> str:
    """The commit of this tree, and whether the package or this script differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    differs = git("status", "--porcelain", "sesurgery", "benchmarks/faults.py")
    return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if differs else "")


def table(rows: dict[str, dict]) -> str:
    """The results as Markdown."""
    lines = [f"| verb | {' | '.join(WAYS)} |", f"| --- |{' ---: |' * len(WAYS)}"]
    for word in VERBS:
        if word in rows:
            cells = rows[word]["cells"]
            shown = (str(Cell(cells[way]["tried"], cells[way]["wrong"]) if way in cells else Cell()) for way in WAYS)
            lines.append(f"| `{word}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verbs", nargs="*", metavar="VERB", help=f"of {', '.join(VERBS)}; default: all")
    parser.add_argument("--ways", help=f"of {', '.join(WAYS)}, separated by commas; default: all")
    parser.add_argument("--table", action="store_true", help="print the table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another file to go on with")
    asked = parser.parse_args()
    rows: dict[str, dict] = json.loads(asked.results.read_text())["verbs"] if asked.results.is_file() else {}
    if asked.table:
        print(table(rows))
        return 0
    from sesurgery.artifacts import cpu_name, to_json, versions, write_text

    imported()
    # Of what was imported: the tree may change while this runs.
    at = commit()
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="sesurgery-faults-", dir=memory if memory.is_dir() else None) as name,
        published(Path(name)),
    ):
        where = Path(name)
        # Code of a workspace is not run in a copy of it.
        (where / "code").mkdir()
        (where / "code" / "net.py").write_text(NETWORK)
        sys.path.insert(0, str(where / "code"))
        states = States(where)
        for word in asked.verbs or VERBS:
            ways = asked.ways.split(",") if asked.ways else list(WAYS)
            row = rows.setdefault(word, {"points": 0, "cells": {}})
            todo = ways if asked.verbs else [way for way in ways if way not in row["cells"]]
            if not todo:
                continue
            before = states.before(VERBS[word])
            row["points"] = before.points
            for way in todo:
                started = time.monotonic()
                cell = WAYS[way](before, where)
                taken = {"seconds": round(time.monotonic() - started, 1), "commit": at}
                row["cells"][way] = asdict(cell) | taken
                print(f"{word}, {way}: {cell} ({taken['seconds']} s)", *sorted(set(cell.wrong)), sep="\n  ", flush=True)
                found = {
                    "command": "python benchmarks/faults.py",
                    "device": cpu_name(),
                    "versions": versions(),
                    "verbs": {verb: rows[verb] for verb in VERBS if verb in rows},
                }
                write_text(asked.results, to_json(found))
    print(table(rows))
    wrong = sum(len(cell["wrong"]) for row in rows.values() for cell in row["cells"].values())
    print(f"\n{sum(cell['tried'] for row in rows.values() for cell in row['cells'].values())} trials, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
