"""One process after another that tries cases, watched from outside: one that dies or hangs is a bad case."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
WALL = 120
"""Seconds without an answer, after which a process hangs unless it computes: others may have the machine."""
BUSY, MOST = 1, 60
"""Processor seconds within that time that show it computes, and those after which native code has hung in one case."""


def _pour(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def spent(process: int) -> float:
    """Processor seconds of a process; 0 of one that has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """Tries cases in a process that is used again until it dies, hangs or has grown; `folder` is its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.process: subprocess.Popen | None = None
        folder.mkdir(parents=True)

    def start(self) -> None:
        """Start a process, and wait until it has imported what cases need."""
        command = [sys.executable, "-m", "tests.fuzz.worker", str(self.folder / "case")]
        with (self.folder / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, text=True, stderr=errors,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        self.lines: queue.Queue = queue.Queue()
        threading.Thread(target=_pour, args=(self.process.stdout, self.lines), daemon=True).start()
        try:
            ready = self.lines.get(timeout=5 * WALL)
        except queue.Empty:
            ready = ""
        if not ready:
            self.end()
            raise RuntimeError(f"the worker does not start: {self._words()}")

    def tried(self, target: str, seed: int, number: int) -> dict[str, str]:
        """What came of one case: its kind, and why where that is bad."""
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps([target, seed, number]) + "\n")
            self.process.stdin.flush()
            line = self._answer()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"kind": "bad", "why": f"the process ended with {self.end()}: {self._words()}"}
        answer = json.loads(line)
        if answer.pop("grown"):
            self.end()
        return answer

    def _answer(self) -> str:
        at_begin = looked = spent(self.process.pid)
        while True:
            try:
                return self.lines.get(timeout=WALL)
            except queue.Empty:
                now = spent(self.process.pid)
                if now - looked <= BUSY or now - at_begin >= MOST:
                    return ""
                looked = now

    def end(self) -> int | None:
        """End the process, if there is one; its exit status."""
        if self.process is None:
            return None
        if not self._over():
            self.process.kill()
        code = self.process.wait()
        self.process.stdin.close()
        self.process = None
        return code

    def _over(self) -> bool:
        """Whether the process has ended by itself, or does so within a moment."""
        try:
            self.process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _words(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace").strip()[-300:]
