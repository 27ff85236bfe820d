"""What every verb costs before its network is of any size: processor time and peak memory of the whole command.

    python benchmarks/startup.py                # three rounds, all verbs
    python benchmarks/startup.py --rounds 1 --only plan,check
    python benchmarks/startup.py --table        # the table of docs/startup.md, from benchmarks/results/startup.json

Each command runs in a process of its own, in a workspace with an 8-layer network for 8 x 8 images; `plan` also plans
specs/seresnet50.yaml beside what it cannot do without: importing torch and timm, and building the network. The figure
is the processor time of user and system together, of the process and its children, and the least of the rounds: other
work on the machine makes it larger, never smaller. Rounds go through all commands, so that a busy minute is not one
command's. Linux counts what this script held when it started a process into that process's peak: memory below 35 MB is
not distinguished. `data` and `demo` are timed with --help: the first waits for a server, the second is the other verbs
one after another, as is `run`, which is left out. `refit` needs a GPU and is left out too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import to_json, write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "startup.json"
SPEC = """version: 1
name: tiny
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8}}
input: {shape: [3, 8, 8]}
surgery: [{insert: {block: se, reduction: 4}, at: residual}]
train: {data: digits, epochs: 1}
engines: [{backend: onnxruntime, precision: fp32}]
parity: {batches: [1]}
latency: {repeats: 10, rounds: 10}
"""
STUDY = "study: {seeds: [0, 1]}\n"
ENGINE = "engines/tiny.onnxruntime.fp32.onnx"
BUILD = "import torch, timm; timm.create_model('resnet50')"
SERESNET50 = str(ROOT / "specs" / "seresnet50.yaml")
PYTHON = {
    "Python": "pass",
    "import torch": "import torch",
    "import torch, timm": "import torch, timm",
    "import torch, timm; build ResNet-50": BUILD,
}
VERBS = {
    "--help": "--help",
    "check": "check tiny.yaml",
    "schema": "schema",
    "list blocks": "list blocks",
    "list passes": "list passes",
    "doctor": "doctor --json",
    "plan": "plan tiny.yaml",
    "plan (SE-ResNet-50)": f"plan {SERESNET50}",
    "inspect": "inspect tiny.yaml",
    "init": "init torchvision:resnet18 -o -",
    "apply": "apply tiny.yaml",
    "train": "train runs/tiny --restart",
    "evaluate": "evaluate runs/tiny",
    "compare": "compare runs/tiny runs/tiny",
    "gates (of a run)": "gates runs/tiny",
    "gates (of a file)": "gates export/tiny.onnx --inputs samples.npz",
    "export": "export runs/tiny",
    "lower": "lower export/tiny.onnx -o lowered.onnx --for onnxruntime",
    "build-engine (of a file)": "build-engine export/tiny.onnx --fp32 --again",
    "build-engine (of a run)": "build-engine runs/tiny --again",
    "verify": f"verify {ENGINE}",
    "verify (of a file)": "verify export/tiny.onnx",
    "bench": f"bench {ENGINE}",
    "report": "report runs/tiny",
    "study --dry-run": "study study.yaml --dry-run",
    "study --table": "study study.yaml --table",
    "data --help": "data --help",
    "demo --help": "demo --help",
    "predict": f"predict {ENGINE} digit.png",
    "package": f"package {ENGINE} --triton models",
}
SETUP = ("apply tiny.yaml", "train runs/tiny", "build-engine runs/tiny", f"bench {ENGINE}", "study study.yaml")


@dataclass(frozen=True)
class Cost:
    """Processor seconds, user and system, and the largest resident size in MB."""

    seconds: float
    megabytes: float


def measured(command: list[str], workspace: Path) -> Cost:
    """What a command costs; raises SystemExit with its words where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=workspace, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read().decode()}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def verb(arguments: str) -> list[str]:
    return [sys.executable, "-m", "sesurgery", *arguments.split(" ")]


def prepare(workspace: Path) -> None:
    """A workspace in which every verb has what it needs."""
    import numpy as np
    from PIL import Image

    (workspace / "tiny.yaml").write_text(SPEC)
    (workspace / "study.yaml").write_text(SPEC.replace("name: tiny", "name: study") + STUDY)
    Image.new("L", (8, 8), 128).save(workspace / "digit.png")
    np.savez(workspace / "samples.npz", input=np.zeros((8, 3, 8, 8), np.float32))
    for arguments in SETUP:
        measured(verb(arguments), workspace)


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = ["| | processor time | peak memory |", "| --- | ---: | ---: |"]
    for name, cost in results["commands"].items():
        shown = f"`{name}`" if name not in PYTHON or name.startswith("import") else name
        lines.append(f"| {shown} | {cost['seconds']:.2f} s | {cost['megabytes']:.0f} MB |")
    return "\n".join(lines)


def main() -> None:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="Names of rows, separated by commas; nothing is written.")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(RESULTS.read_text())))
        return
    commands = {name: [sys.executable, "-c", code] for name, code in PYTHON.items()}
    commands |= {name: verb(text) for name, text in VERBS.items()}
    if arguments.only:
        commands = {name: commands[name] for name in arguments.only.split(",")}
    best: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        prepare(workspace)
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                found = measured(command, workspace)
                before = best.get(name, found)
                best[name] = Cost(min(found.seconds, before.seconds), min(found.megabytes, before.megabytes))
    results = {
        **provenance(),
        "rounds": arguments.rounds,
        "commands": {
            name: {"seconds": round(c.seconds, 3), "megabytes": round(c.megabytes)} for name, c in best.items()
        },
    }
    print(table(results))
    if not arguments.only:
        write_text(RESULTS, to_json(results))


if __name__ == "__main__":
    main()
