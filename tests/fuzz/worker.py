"""A process that tries cases one after another, with bounds on its memory and on the time of a case.

Called as `python -m tests.fuzz.worker FOLDER`; reads a line `[TARGET, SEED, NUMBER]` for each case and answers with a
line of JSON. Its first line says that it is ready.
"""

import contextlib
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
GROWN = 512 * 1024**2
"""Bytes that a process may gain over many cases before another takes its place: what libraries keep is no case's."""
MODULES = {"specs": "spec", "onnx_files": "onnx", "files": "file-", "images": "image", "artefacts": ""}


def case(target: str, seed: int, number: int, folder: Path) -> dict[str, str]:
    """Try one case in an empty folder and return the result."""
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


def imported() -> None:
    """Import what verbs import, which must not count as a case's time, and compute once what no case changes."""
    import onnx_ir  # noqa: F401
    import timm  # noqa: F401
    import torch
    import torch.onnx._internal.exporter._core

    import sesurgery.pipeline  # noqa: F401
    from tests.fuzz.exporting import export_blocks_once, read_operators_once

    torch.set_num_threads(1)
    for module in MODULES:
        importlib.import_module(f"tests.fuzz.targets.{module}")
    read_operators_once()
    export_blocks_once()


def held() -> int:
    """Bytes of data that this process has asked for."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


def main() -> None:
    folder = Path(sys.argv[1])
    # What libraries write to stdout must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    imported()
    begun = held()
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        # Each case may take this much, whatever those before it have left.
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (held() + BYTES, resource.RLIM_INFINITY))
        answer = case(*json.loads(line), folder)
        print(json.dumps({**answer, "grown": held() - begun > GROWN}), file=answers, flush=True)


if __name__ == "__main__":
    main()
