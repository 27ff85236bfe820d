"""What SE costs on this machine's processor, by engine: the network without it, with it as exported, and lowered.

    python benchmarks/cpu_latency.py                       SE-ResNet-50, SE-ResNet-18, MobileNetV3 and EfficientNet-B0
    python benchmarks/cpu_latency.py resnet50 --rounds 60  some of them, for longer
    python benchmarks/cpu_latency.py --engines onnxruntime,openvino --batch 8
    python benchmarks/cpu_latency.py --table               the table of docs/free_se.md from the committed results

Batch 1, or another one that engines are tuned for; fp32, two threads. All engines and forms of a network run in
alternating rounds of one process, so that a machine that slows down slows all of them, and in several processes, since
where memory comes to lie differs by process. Each process loads them in another random order, every second one in the
reverse order of the one before: who is loaded first is slower. A figure is the mean over processes of the median over
rounds of a form's time over the plain network's time on the same engine in the same round, with Student's 95 % interval
over processes, the load order taken out of it. The rows of results without `"interval": "processes"` are from before:
three processes in one load order, with a bootstrap over all rounds, which is too narrow. `processor` is
the same of the processor time that the process took: less exact about two threads, but almost untouched by other
programs. `vs` is the form's time over that of the fastest plain engine. Engines are built by sesurgery's
backends; `as exported` is without lowering passes and without what the backend does to gates, so it is what the engine
makes of timm's export.
Weights and norm statistics are random.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))
from compiled_traffic import NETWORKS as ALL_NETWORKS  # noqa: E402
from compiled_traffic import saved, timm_network  # noqa: E402

RESULTS = ROOT / "results" / "cpu_latency.json"
PAGE = ROOT.parent / "docs" / "free_se.md"
NETWORKS = ("resnet50", "resnet18", "mobilenetv3_large_100", "efficientnet_b0")
ENGINES = ("onnxruntime", "openvino", "eager", "inductor")
FORMS = ("plain", "as exported", "lowered")
SHAPE = (3, 224, 224)
LARGEST = 8
"""The largest batch that an engine takes."""
REPEATS = 2
"""Timed runs of each in a round, after one that is not counted; the fastest counts."""
CONFIDENCE = 0.95


def build(plain: str, engines: tuple[str, ...], batch: int, folder: Path) -> None:
    """Write every engine of one network, named ENGINE.FORM and its backend's suffix."""
    import onnx

    from sesurgery.backends import BACKENDS
    from sesurgery.backends.base import BatchRange, BuildOptions, BuildsFromNetwork
    from sesurgery.lowering import load
    from sesurgery.lowering.base import run
    from sesurgery.lowering.fx import lower

    name = ALL_NETWORKS[plain]
    options = BuildOptions(batch=BatchRange(1, batch, LARGEST), threads=THREADS)
    networks = {
        "plain": timm_network(plain, without_se=plain == name),
        "as exported": timm_network(name, without_se=False),
    }
    models = {form: saved(network, folder) for form, network in networks.items()}
    for engine in engines:
        if engine == "eager":
            continue
        backend = BACKENDS.load(engine)()
        for form in FORMS:
            target = folder / f"{engine}.{form}{backend.suffix}"
            given = "plain" if form == "plain" else "as exported"
            if isinstance(backend, BuildsFromNetwork):
                passes = backend.passes if form == "lowered" else ()
                module = lower(networks[given], SHAPE, (1, LARGEST), passes).module
                backend.build_network(module, SHAPE, target, options)
                continue
            model = models[given]
            if form == "lowered":
                model = run(model, load(backend.passes), verify=True).model
            onnx.save(model, folder / "given.onnx")
            if engine == "onnxruntime" and form != "lowered":
                _optimised(folder / "given.onnx", target)
            else:
                backend.build(folder / "given.onnx", target, options)


def _optimised(source: Path, target: Path) -> None:
    """What ONNX Runtime makes of a file by itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = THREADS
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def timers(plain: str, order: list[tuple[str, str]], batch: int, folder: Path) -> dict[str, Callable[[int], float]]:
    """For every engine and form, loaded in this order, what runs it so often and gives the fastest run's seconds."""
    import numpy as np
    import torch

    from sesurgery.backends import BACKENDS

    image = np.random.default_rng(0).normal(size=(batch, *SHAPE)).astype(np.float32)
    torch.set_num_threads(THREADS)
    found: dict[str, Callable[[int], float]] = {}
    for engine, form in order:
        if engine != "eager":
            backend = BACKENDS.load(engine)()
            runner = backend.load(folder / f"{engine}.{form}{backend.suffix}", THREADS)
            feeds = {runner.inputs[0].name: image.copy()}
            found[f"{engine}.{form}"] = lambda count, runner=runner, feeds=feeds: min(runner.time(feeds, count))
        elif form != "lowered":
            name = plain if form == "plain" else ALL_NETWORKS[plain]
            network = timm_network(name, without_se=form == "plain" and name == ALL_NETWORKS[plain])
            found[f"{engine}.{form}"] = _eager(network, torch.from_numpy(image.copy()))
    return found


def load_order(engines: tuple[str, ...], process: int) -> list[tuple[str, str]]:
    """A random order of engines and forms for every two processes, the second of which has it reversed."""
    order = [(engine, form) for engine in engines for form in FORMS]
    random.Random(process // 2).shuffle(order)
    return order if process % 2 == 0 else order[::-1]


def _eager(network, image) -> Callable[[int], float]:
    import torch

    def run(count: int) -> float:
        taken = []
        with torch.inference_mode():
            for _ in range(count):
                started = time.perf_counter()
                network(image)
                taken.append(time.perf_counter() - started)
        return min(taken)

    return run


def race(
    plain: str, engines: tuple[str, ...], batch: int, folder: Path, rounds: int, process: int
) -> dict[str, list[list[float]]]:
    """Rounds of [seconds, processor seconds] for each engine and form, in one process."""
    found = timers(plain, load_order(engines, process), batch, folder)
    for run in found.values():
        run(3)
    taken: dict[str, list[list[float]]] = {name: [] for name in found}
    for number in range(rounds):
        for name in list(found) if number % 2 else list(found)[::-1]:
            found[name](1)
            before = time.process_time()
            seconds = found[name](REPEATS)
            taken[name].append([seconds, (time.process_time() - before) / REPEATS])
    return taken


def measured(plain: str, engines: tuple[str, ...], batch: int, processes: int, rounds: int) -> dict[str, object]:
    """One network's row: ratios with their intervals."""
    import numpy as np

    pooled: dict[str, list[list[list[float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        build(plain, engines, batch, Path(folder))
        for process in range(processes):
            words = [plain, "--worker", folder, "--rounds", str(rounds), "--engines", ",".join(engines)]
            words += ["--batch", str(batch), "--process", str(process)]
            done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
            for name, taken in json.loads(done.stdout.splitlines()[-1]).items():
                pooled.setdefault(name, []).append(taken)
    # By [process, round, wall or processor].
    times = {name: np.array(taken) for name, taken in pooled.items()}
    fastest = min((name for name in times if name.endswith(".plain")), key=lambda name: np.median(times[name][..., 0]))
    row: dict[str, object] = {
        "network": ALL_NETWORKS[plain],
        "batch": batch,
        "rounds": rounds * processes,
        "processes": processes,
        "interval": "processes",
    }
    row["load"] = os.getloadavg()[0]
    row["forms"] = {}
    for name, taken in times.items():
        row["forms"][name] = {  # type: ignore[index]
            "wall": _ratio(name, 0, times, engines),
            "processor": _ratio(name, 1, times, engines),
            "vs_fastest_plain": float(np.median(taken[..., 0] / times[fastest][..., 0])),
        }
    return row


def _ratio(name: str, at: int, times: dict[str, Any], engines: tuple[str, ...]) -> list[float]:
    """A form over the plain network on the same engine, with its interval; each process is one placement."""
    from sesurgery.verification.estimates import PairedTimes, estimate_tax

    engine, _, form = name.partition(".")
    if form == "plain":
        return [1.0, 1.0, 1.0]
    ours, theirs = times[name][..., [at]], times[f"{engine}.plain"][..., [at]]
    pairs = []
    for process in range(len(ours)):
        order = load_order(engines, process)
        first = order.index((engine, form)) < order.index((engine, "plain"))
        pairs.append(PairedTimes(ours[process], theirs[process], first))
    tax = estimate_tax(pairs, CONFIDENCE)
    return [1 + tax.value, 1 + tax.low, 1 + tax.high]


def measure(networks: list[str], engines: tuple[str, ...], batch: int, processes: int, rounds: int) -> None:
    """Measure networks and write the results down, those there are of others kept."""
    from provenance import provenance

    from sesurgery.artifacts import to_json, write_text
    from sesurgery.backends import BACKENDS

    taken = provenance()
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": [], "passes": {}}
    rows = known["rows"]
    order = [ALL_NETWORKS[name] for name in NETWORKS]
    for plain in networks:
        row = measured(plain, engines, batch, processes, rounds)
        rows = [other for other in rows if _what(other) != _what(row)] + [row]
        for line in _lines(row):
            print(line, flush=True)
        data = {
            **taken,
            "threads": THREADS,
            "versions": {**taken["versions"], "openvino": BACKENDS.load("openvino")().probe().version},
            "passes": {
                **known["passes"],
                **{engine: list(BACKENDS.load(engine).passes) for engine in engines if engine != "eager"},
            },
            "rows": sorted(rows, key=lambda row: (row["batch"], order.index(row["network"]))),
        }
        write_text(RESULTS, to_json(data))


def _what(row: dict) -> str:
    return row["network"] if row["batch"] == 1 else f"{row['network']}, batch {row['batch']}"


def _lines(row: dict) -> list[str]:
    lines = []
    for engine in dict.fromkeys(name.partition(".")[0] for name in row["forms"]):
        cells = [_what(row), engine]
        for form in FORMS[1:]:
            found = row["forms"].get(f"{engine}.{form}")
            for kind in ("wall", "processor"):
                cells.append("" if found is None else "{:.3f} ({:.3f} to {:.3f})".format(*found[kind]))
        best = [row["forms"].get(f"{engine}.{form}") for form in FORMS]
        cells.append(" / ".join("-" if found is None else f"{found['vs_fastest_plain']:.2f}" for found in best))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table() -> None:
    """Write the table into the page, between its marks."""
    data = json.loads(RESULTS.read_text())
    head = ["network", "engine", "as exported", "processor", "lowered", "processor", "vs the fastest plain engine"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [line for row in data["rows"] for line in _lines(row)]
    names = ("onnxruntime", "openvino", "torch", "timm")
    rounds = ", ".join(f"{row['rounds']} rounds of {_what(row)}" for row in data["rows"])
    lines += [
        "",
        f"{data['device']}, {data['threads']} threads, {rounds}, each in {data['rows'][0]['processes']} processes.",
    ]
    versions = ", ".join(f"{name} {data['versions'][name]}" for name in names)
    lines.append(f"Versions: {versions}.")
    pattern = re.compile(r"(<!-- cpu latency -->\n).*?(\n<!-- end -->)", re.DOTALL)
    text = "\n".join(lines)
    PAGE.write_text(pattern.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", PAGE.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--batch", type=int, default=1, help=f"samples, at most {LARGEST}")
    parser.add_argument("--processes", type=int, default=8, help="at least 4, an even number")
    parser.add_argument("--rounds", type=int, default=12, help="in each process")
    parser.add_argument("--table", action="store_true", help="write the table of docs/free_se.md from the results")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    engines = tuple(given.engines.split(","))
    warnings.filterwarnings("ignore")
    if unknown := {*given.networks} - {*NETWORKS} | {*engines} - {*ENGINES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if given.processes < 4 or given.processes % 2:
        parser.error("take an even number of processes, 4 or more: each load order has its reverse")
    if given.table:
        table()
    elif given.worker:
        print(json.dumps(race(given.networks[0], engines, given.batch, given.worker, given.rounds, given.process)))
    else:
        measure(given.networks or list(NETWORKS), engines, given.batch, given.processes, given.rounds)


if __name__ == "__main__":
    main()
