"""Checks names and calls against a module with TensorRT's API; run by test_backend_nvidia_api.py in its own process.

    python nvidia_api.py MODULE < uses.json

Prints, as JSON, the module's version and a line for each use that the module does not have or does not take. Functions
that pybind11 made tell their parameters in the first lines of their docstrings only.
"""

import importlib
import inspect
import json
import re
import sys
import types

trt = importlib.import_module(sys.argv[1])


def parameters(function: object) -> list[tuple[list[str], int]]:
    """Of each overload, the names of the parameters and how many of them must be given; self is not one."""
    if isinstance(function, types.FunctionType):
        given = inspect.signature(function).parameters.values()
        return [([part.name for part in given], sum(part.default is part.empty for part in given))]
    found = []
    for line in (getattr(function, "__doc__", None) or "").splitlines():
        match = re.match(r"(?:\d+\. )?\w+\((self(?:: [\w.]+)?,? ?.*)\) -> ", line)
        if match is None:
            continue
        # Types can hold commas and defaults.
        flat = re.sub(r"<[^<>]*>|\"[^\"]*\"", "0", match[1])
        while (shorter := re.sub(r"\[[^\[\]]*\]|\([^()]*\)", "", flat)) != flat:
            flat = shorter
        parts = [part.strip() for part in flat.split(",") if part.strip()][1:]
        names = [re.split(r"[:=]", part)[0].strip() for part in parts]
        found.append((names, sum("=" not in part for part in parts)))
    return found


def wrong(use: dict) -> str | None:
    here: object = trt
    for name in use["path"]:
        if not hasattr(here, name):
            return f"{'.'.join(use['path'])} is not there"
        here = getattr(here, name)
    if use["given"] is None or isinstance(here, type):
        return None
    overloads = parameters(here)
    if not overloads:
        return f"{'.'.join(use['path'])} tells no parameters"
    given = use["given"]
    if any(needed <= given <= len(names) for names, needed in overloads):
        return None
    return f"{'.'.join(use['path'])} is given {given} arguments and takes {overloads}"


answers = [wrong(use) for use in json.load(sys.stdin)]
print(json.dumps({"version": trt.__version__, "wrong": sorted({answer for answer in answers if answer})}))
