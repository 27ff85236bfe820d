"""Ends commands at every file they put in place, and looks at what is left: `python benchmarks/faults.py`.

Every verb is run in a process of its own that is ended by kill -9, SIGTERM or SIGINT before each rename it makes and
after the last, on a disk that is full (with several amounts left) or read-only, beside a second process that does the
same, and with a clock that jumped: the workspace's files are of next year, of last year and of 1970. After each: what
was there before is there and valid; the same command, given again, succeeds; no temporary file is left. Every cell is
tried at least three times. Disks need root, for a tmpfs of their own; without it those columns are not tried, and say
so.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SPEC = """\
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: {dataset: digits, held_out: 0.1}, epochs: 1, batch_size: 256, threads: 1}
engines:
  - {backend: onnxruntime, precision: fp32}
parity: {batches: [64]}
latency: {batch: 1, rounds: 10, repeats: 2, warmup_seconds: 0, threads: 1}
"""
ENGINE = "engines/tiny.onnxruntime.fp32.onnx"
KILLS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
LEFT = (0, 16 << 10, 128 << 10, 1 << 20)
"""Bytes that a full disk still has."""
TRIES = 3
YEAR = 365 * 86_400


@dataclass(frozen=True)
class Verb:
    """A command, the state of the workspace it is given in, and how to go on where it says so."""

    words: tuple[str, ...]
    state: str
    resume: tuple[str, ...] = ()


VERBS = {
    "apply": Verb(("apply", "tiny.yaml"), "empty"),
    "train": Verb(("train", "runs/tiny"), "applied", ("train", "runs/tiny", "--resume")),
    "train --restart": Verb(("train", "runs/tiny", "--restart"), "built"),
    "export": Verb(("export", "runs/tiny"), "built"),
    "lower": Verb(("lower", "export/tiny.onnx", "-o", "lowered.onnx", "--for", "onnxruntime"), "built"),
    "build-engine": Verb(("build-engine", "runs/tiny", "--again"), "built"),
    "verify": Verb(("verify", ENGINE), "built"),
    "bench": Verb(("bench", ENGINE), "built"),
    "package": Verb(("package", ENGINE, "--triton", "models"), "built"),
    "schema": Verb(("schema", "-o", "schema.json"), "empty"),
    "run": Verb(("run", "tiny.yaml"), "empty"),
}


@dataclass
class Cell:
    """What was tried of a verb in one way: how often, and what was wrong."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "not tried" if not self.tried else f"{self.tried}" + (f", {len(self.wrong)} WRONG" if self.wrong else "")


def started(words: tuple[str, ...], folder: Path, strike: Callable[[], None] | None = None, at: int = -1) -> int:
    """Start a command in a fork of this process, which has the slow imports behind it; gives its process id."""
    if child := os.fork():
        return child
    # Whatever happens here, the child must not go on as the parent.
    try:
        os.chdir(folder)
        with open(folder.with_name(folder.name + ".log"), "ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        count = _armed(strike, at)
        sys.argv = ["sesurgery", *words]
        from sesurgery.cli import main

        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        # A command that was struck already has its code.
        if strike is not None and code == 0 and at == count():
            # The verb has given its handlers back: what comes now is the interpreter's, and ends it as a signal does.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            strike()
        with contextlib.suppress(OSError):
            folder.with_name(folder.name + ".count").write_text(str(count()))
    except BaseException:
        code = 99
    os._exit(code)


def ended(child: int) -> int:
    """The exit code of a process, negative where a signal ended it, as subprocess counts."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _armed(strike: Callable[[], None] | None, at: int) -> Callable[[], int]:
    """Strike before the rename with this number; gives how many there were."""
    done = 0
    rename, replace = os.rename, os.replace

    def wrapped(real: Callable[..., None]) -> Callable[..., None]:
        def put(*arguments: object, **named: object) -> None:
            nonlocal done
            if strike is not None and done == at:
                strike()
            done += 1
            real(*arguments, **named)

        return put

    os.rename, os.replace = wrapped(rename), wrapped(replace)
    return lambda: done


def valid(folder: Path) -> dict[str, str]:
    """The artefacts of a workspace that are what their manifests say, with their digests."""
    from sesurgery.diagnostics import SesurgeryError
    from sesurgery.workspace import require_intact

    found = {}
    with contextlib.chdir(folder):
        for manifest in Path().rglob("*.manifest.json"):
            artefact = manifest.with_name(manifest.name.removesuffix(".manifest.json"))
            with contextlib.suppress(SesurgeryError):
                found[artefact.as_posix()] = require_intact(artefact).sha256
    return found


def judge(verb: Verb, folder: Path, before: dict[str, str], code: int, allowed: tuple[int, ...]) -> list[str]:
    """What is wrong with a workspace after a command was ended in it; the command is given again."""
    wrong = [] if code in allowed else [f"exit {code}"]
    log = folder.with_name(folder.name + ".log")
    wrong += ["a traceback"] if log.is_file() and "Traceback" in log.read_text() else []
    lost = sorted(before.keys() - valid(folder).keys())
    # An export or an engine that was being replaced is made again by the same command, and refused until then.
    wrong += [f"{path} lost" for path in lost if path.startswith("runs/")]
    words = verb.words
    again = ended(started(words, folder))
    if again == 1 and verb.resume:
        again = ended(started(verb.resume, folder))
        if again == 1:
            # It had ended well: a trained run is not trained again unasked.
            again = 0 if "is trained already" in log.read_text() else 1
    if again:
        wrong.append(f"given again: exit {again}")
    wrong += [f"{path} not made again" for path in lost if path not in valid(folder)]
    wrong += [f"{path.relative_to(folder)} left behind" for path in folder.rglob("*.tmp")]
    return wrong


@contextlib.contextmanager
def copied(state: Path, where: Path) -> Iterator[Path]:
    """A copy of a workspace, gone after the block."""
    folder = Path(tempfile.mkdtemp(dir=where)) / "w"
    shutil.copytree(state, folder, copy_function=shutil.copy2)
    try:
        yield folder
    finally:
        shutil.rmtree(folder.parent)


@contextlib.contextmanager
def disk(where: Path) -> Iterator[Path | None]:
    """A disk of its own to fill and to lock, or None where it cannot be had."""
    where.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(where)], capture_output=True)
    try:
        yield where if made.returncode == 0 else None
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(where)], check=True)


def struck(verb: Verb, state: Path, where: Path, number: int) -> Cell:
    """End a verb by a signal at each of its renames."""
    cell, before = Cell(), valid(state)
    with copied(state, where) as folder:
        code = ended(started(verb.words, folder))
        assert code == 0, folder.with_name("w.log").read_text()
        points = int(folder.with_name("w.count").read_text())
    allowed = -signal.SIGKILL if number == signal.SIGKILL else 128 + number
    for at in itertools.islice(itertools.cycle(range(points + 1)), max(TRIES, points + 1)):
        with copied(state, where) as folder:
            code = ended(started(verb.words, folder, lambda: os.kill(os.getpid(), number), at))
            # After the last rename, a command may have ended before it sees the signal.
            wrong = judge(verb, folder, before, code, (allowed, 0, -number) if at == points else (allowed,))
            cell.tried += 1
            cell.wrong += [f"before file {at}: {what}" for what in wrong]
    return cell


def full(verb: Verb, state: Path, where: Path) -> Cell:
    """Run a verb on a disk with little left, then on one with room."""
    cell, before = Cell(), valid(state)
    for left in LEFT:
        with disk(where / "disk") as root:
            if root is None:
                return cell
            with copied(state, root) as folder:
                filler = root / "filler"
                free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
                with filler.open("wb") as stream:
                    os.posix_fallocate(stream.fileno(), 0, max(1, free - left))
                code = ended(started(verb.words, folder))
                filler.unlink()
                cell.tried += 1
                cell.wrong += [f"{left} bytes left: {what}" for what in judge(verb, folder, before, code, (0, 1))]
        (where / "disk").rmdir()
    return cell


def locked(verb: Verb, state: Path, where: Path) -> Cell:
    """Run a verb on a read-only disk, then on the same one where it can write."""
    cell, before = Cell(), valid(state)
    for _ in range(TRIES):
        with disk(where / "disk") as root:
            if root is None:
                return cell
            with copied(state, root) as folder:
                subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
                # Its log lies on the disk too.
                code = subprocess.run(
                    [sys.executable, "-c", "from sesurgery.cli import main; main()", *verb.words],
                    cwd=folder, capture_output=True,
                ).returncode  # fmt: skip
                subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
                cell.tried += 1
                cell.wrong += judge(verb, folder, before, code, (1,))
        (where / "disk").rmdir()
    return cell


def doubled(verb: Verb, state: Path, where: Path) -> Cell:
    """Run a verb twice at once in one workspace."""
    cell, before = Cell(), valid(state)
    for _ in range(TRIES):
        with copied(state, where) as folder:
            first, second = started(verb.words, folder), started(verb.words, folder)
            codes = {ended(first), ended(second)}
            cell.tried += 1
            wrong = [] if codes in ({0}, {0, 1}) else [f"exits {sorted(codes)}"]
            cell.wrong += wrong + judge(verb, folder, before, 0, (0,))
    return cell


def jumped(verb: Verb, state: Path, where: Path) -> Cell:
    """Run a verb where the clock has jumped since the files were written."""
    cell, before = Cell(), valid(state)
    for by in (YEAR, -YEAR, -time.time()):
        with copied(state, where) as folder:
            for path in (*folder.rglob("*"), folder):
                then = max(0.0, path.stat().st_mtime + by)
                os.utime(path, (then, then))
            code = ended(started(verb.words, folder))
            cell.tried += 1
            cell.wrong += [f"files {by:+.0f} s: {what}" for what in judge(verb, folder, before, code, (0,))]
    return cell


def states(where: Path, needed: set[str]) -> dict[str, Path]:
    """Workspaces in which commands are given: without a run, with an applied one, with an engine of a trained one."""
    made = {name: where / name for name in ("empty", "applied", "built")}
    steps = {"applied": [("apply", "tiny.yaml")], "built": [("train", "runs/tiny"), ("build-engine",), ("verify",)]}
    before = None
    for name, folder in made.items():
        if not needed & set(list(made)[list(made).index(name) :]):
            break
        shutil.copytree(before, folder, copy_function=shutil.copy2) if before else folder.mkdir()
        (folder / "tiny.yaml").write_text(SPEC)
        for words in steps.get(name, []):
            code = ended(started(words, folder))
            assert code == 0, (words, folder.with_name(f"{name}.log").read_text())
        before = folder
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verbs", nargs="*", help=f"of {', '.join(VERBS)}; default: all")
    chosen = parser.parse_args().verbs or list(VERBS)
    # Forks start at once.
    import sesurgery.pipeline  # noqa: F401

    columns = ["verb", *KILLS, "full disk", "read-only disk", "two processes", "clock"]
    print(f"| {' | '.join(columns)} |\n| {' | '.join('---' for _ in columns)} |", flush=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sesurgery-faults-") as name:
        where = Path(name)
        made = states(where, {VERBS[word].state for word in chosen})
        for word in chosen:
            verb = VERBS[word]
            state = made[verb.state]
            cells = {way: struck(verb, state, where, number) for way, number in KILLS.items()}
            cells |= {"full disk": full(verb, state, where), "read-only disk": locked(verb, state, where)}
            cells |= {"two processes": doubled(verb, state, where), "clock": jumped(verb, state, where)}
            print(f"| `{word}` | {' | '.join(map(str, cells.values()))} |", flush=True)
            wrong += [f"{word}, {way}: {what}" for way, cell in cells.items() for what in cell.wrong]
    print(f"\n{len(wrong)} wrong", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
