"""Whether lowering passes pay: engines with and without them, in alternating rounds of one process.

    python benchmarks/pass_pays.py hard_sigmoid                MobileNetV3-Large, its hard sigmoids spelled out, fp32
    python benchmarks/pass_pays.py precisions                  SE-ResNet-50 in fp16, bf16 and int8, hoisted and not
    python benchmarks/pass_pays.py precisions --rounds 40
    python benchmarks/pass_pays.py inner                       SE on the 3x3 of a bottleneck: what TensorRT-RTX compiles

Batch 1, 224 x 224, two threads, random weights and norm statistics, ranges for int8 found on random images (of speed
they decide nothing). A figure is the median over rounds of a form's time over that of the same engine without the
passes, of wall time and of the processor time that the process took, with the 95 % interval of a bootstrap over
rounds. Where TensorRT-RTX is installed, `hard_sigmoid` also says what it compiles of both files; `inner` times nothing,
it gives kernels and bytes of activations as exported, lowered, and lowered without squeeze_hoist_spatial.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
import sys  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))
from compiled_traffic import MODES, saved, timm_network  # noqa: E402

SHAPE = (3, 224, 224)
REPEATS = 2
CONFIDENCE = 0.95
PRECISIONS = {"onnxruntime": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "bf16", "int8")}
FORMS = {
    "hard_sigmoid": {"without": (), "with": ("hard_sigmoid",)},
    "precisions": {
        "without": (),
        "squeeze_hoist": ("squeeze_hoist",),
        "squeeze_hoist, squeeze_pool": ("squeeze_hoist", "squeeze_pool"),
    },
}


def network(subject: str):
    """The network that a question is asked of."""
    if subject == "precisions":
        return timm_network("seresnet50", without_se=False)
    return spelled_out(timm_network("mobilenetv3_large_100", without_se=False))


def spelled_out(network):
    """A network whose gates compute relu6(x + 3) / 6 in parts, as a module written by hand does."""
    import torch.nn.functional as functional
    from torch import nn

    class HardSigmoid(nn.Module):
        def forward(self, x):
            return functional.relu6(x + 3.0) / 6.0

    for module in list(network.modules()):
        if type(module).__name__ == "SqueezeExcite":
            module.gate = HardSigmoid()
    return network


def in_precision(model, backend, precision: str):
    """The model as an engine of that precision is built from it."""
    from sesurgery.lowering.base import run
    from sesurgery.lowering.precision.half import Precision
    from sesurgery.lowering.precision.int8 import Quantize, ranges_of
    from sesurgery.onnxgraph import numerics as _numerics

    if precision == "fp32":
        return model
    if precision != "int8":
        return run(model, [Precision(precision)]).model
    samples = [{name: array[:1] for name, array in _numerics.feeds(model, seed).items()} for seed in range(2)]
    return run(model, [Quantize(ranges_of(model, samples, "minmax"), backend.int8_activations)]).model


def engines(subject: str, folder: Path) -> dict[tuple[str, str], dict[str, Callable[[int], float]]]:
    """For every backend and precision, each form as what runs it so often and gives the seconds of the fastest run."""
    import numpy as np
    import onnx

    from sesurgery.backends import BACKENDS
    from sesurgery.backends.base import BatchRange, BuildOptions
    from sesurgery.lowering import load
    from sesurgery.lowering.base import run

    model = saved(network(subject), folder)
    image = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    found: dict[tuple[str, str], dict[str, Callable[[int], float]]] = {}
    for name, precisions in PRECISIONS.items():
        backend = BACKENDS.load(name)()
        for precision in precisions if subject == "precisions" else ("fp32",):
            for form, passes in FORMS[subject].items():
                if not set(passes) <= set(backend.passes):
                    continue
                lowered = run(model, load(passes), verify=True)
                source = folder / "given.onnx"
                onnx.save(in_precision(lowered.model, backend, precision), source)
                target = folder / f"{name}.{precision}.{len(passes)}{backend.suffix}"
                backend.build(source, target, BuildOptions(precision, BatchRange(1, 1, 1), threads=THREADS))
                runner = backend.load(target, THREADS)
                feeds = {runner.inputs[0].name: image}
                timer = lambda count, runner=runner, feeds=feeds: min(runner.time(feeds, count))  # noqa: E731
                found.setdefault((name, precision), {})[form] = timer
            print(f"built {name} {precision}", flush=True)
    return found


def race(forms: dict[str, Callable[[int], float]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Rounds of (seconds, processor seconds) for each form."""
    for run in forms.values():
        run(3)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for number in range(rounds):
        for name in list(forms) if number % 2 else list(forms)[::-1]:
            forms[name](1)
            before = time.process_time()
            seconds = forms[name](REPEATS)
            taken[name].append((seconds, (time.process_time() - before) / REPEATS))
    return taken


def ratio(taken: dict[str, list[tuple[float, float]]], form: str, index: int) -> str:
    """The median over rounds, with its interval."""
    import numpy as np

    values = np.array([mine[index] / base[index] for mine, base in zip(taken[form], taken["without"], strict=True)])
    random = np.random.default_rng(0)
    medians = np.median(random.choice(values, (2000, len(values))), axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return f"{np.median(values):.3f} ({low:.3f} to {high:.3f})"


def compiled_by_rtx(folder: Path) -> None:
    """Kernels and bytes of the spelled-out network before and after hard_sigmoid."""
    from compiled_traffic import compiled

    from sesurgery.backends import BACKENDS
    from sesurgery.lowering import load
    from sesurgery.lowering.base import run

    backend = BACKENDS.load("tensorrt-rtx")
    if backend().probe().builds is not None:
        return
    model = saved(network("hard_sigmoid"), folder)
    for words, passes in (("", backend.passes), (" and hard_sigmoid", (*backend.passes, "hard_sigmoid"))):
        lowered = run(model, load(passes), verify=True).model
        for precision in ("fp32", "fp16"):
            found = compiled(lowered, precision, MODES[0], folder)
            print(f"tensorrt-rtx {precision}, its passes{words}: {json.dumps(found)}", flush=True)


def inner(folder: Path) -> None:
    """SE on the 3x3 convolutions of bottlenecks, behind the activation (`inner`) and before it (on the norm)."""
    import timm
    import torch
    from compiled_traffic import compiled

    import sesurgery
    from sesurgery.backends import BACKENDS
    from sesurgery.lowering import load
    from sesurgery.lowering.base import run

    passes = BACKENDS.load("tensorrt-rtx").passes
    norm = {"placement": "module", "names": "layer*.bn2"}
    for name, at in (("resnet50", "inner"), ("resnet50", norm), ("resnext50_32x4d", norm)):
        torch.manual_seed(0)
        plain = timm.create_model(name).eval()
        model = saved(sesurgery.insert(plain, at=at, example_input=torch.zeros(1, *SHAPE)).eval(), folder)
        without = tuple(each for each in passes if each != "squeeze_hoist_spatial")
        for form, names in (("as exported", ()), ("lowered", passes), ("without squeeze_hoist_spatial", without)):
            lowered = run(model, load(names)).model
            for precision in ("fp32", "fp16"):
                found = compiled(lowered, precision, MODES[1], folder)
                where = at if isinstance(at, str) else at["names"]
                words = f"{found['kernels']} kernels, {found['bytes'] / 1e6:.1f} MB"
                print(f"{name} at {where}, {form}, {precision}: {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=[*FORMS, "inner"])
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.subject == "inner":
            inner(Path(folder))
            return
        for (name, precision), forms in engines(given.subject, Path(folder)).items():
            taken = race(forms, given.rounds)
            for form in forms:
                if form != "without":
                    words = f"wall {ratio(taken, form, 0)}, processor {ratio(taken, form, 1)}"
                    print(f"{name} {precision}, {form}: {words}", flush=True)
        if given.subject == "hard_sigmoid":
            compiled_by_rtx(Path(folder))


if __name__ == "__main__":
    main()
