"""A process that tries cases one after another, with bounds on its memory and on the time of a case.

Called as `python -m tests.fuzz.worker FOLDER TARGET SEED FIRST LAST`; prints a line of JSON before and after each.
"""

import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
from pathlib import Path

SECONDS, BYTES = 20, 2 * 1024**3
MODULES = {"specs": "spec", "onnx_files": "onnx", "images": "image", "artefacts": ""}


def case(target: str, seed: int, number: int, folder: Path) -> dict[str, str]:
    """Try one case in an empty folder; what came of it."""
    from tests.fuzz.oracle import BadError, last_lines

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    here = Path.cwd()
    # Of processor time, which does not hang on what else the machine does.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        outcome = _targets(target)[target](random.Random(f"{target} {seed} {number}"), folder)
        return {"kind": outcome.kind}
    except BadError as error:
        return {"kind": "bad", "why": str(error)[:500]}
    except Exception as error:
        return {"kind": "bad", "why": last_lines(error)}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.chdir(here)


def _targets(target: str) -> dict:
    module = next(name for name, start in MODULES.items() if target.startswith(start))
    return importlib.import_module(f"tests.fuzz.targets.{module}").TARGETS


def bounded() -> None:
    """Let this process have 2 GB more than it has now."""
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (int(own.split()[1]) * 1024 + BYTES,) * 2)


def main() -> None:
    folder, target, seed, first, last = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    # What libraries write to stdout must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _targets(target)
    # What verbs import when they run must not count as a case's time.
    import torch

    import sesurgery.pipeline  # noqa: F401

    torch.set_num_threads(1)
    bounded()
    for number in range(first, last):
        print(json.dumps({"begins": number}), file=answers, flush=True)
        print(json.dumps({"ends": number, **case(target, seed, number, folder)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
