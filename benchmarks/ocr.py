"""What SE costs in the text detector, recogniser and classifier that PaddleOCR ships, before and after lowering.

    python benchmarks/ocr.py FOLDER                  the three files of PP-OCRv4, on ONNX Runtime and OpenVINO
    python benchmarks/ocr.py FOLDER --rounds 200     for longer
    python benchmarks/ocr.py FOLDER --check          that the outputs are equal, without times
    python benchmarks/ocr.py --table                 the table of docs/free_se.md, from the results

FOLDER holds the files of PyPI's rapidocr-onnxruntime 1.4.4 (`pip download rapidocr-onnxruntime==1.4.4 --no-deps`,
unpack the wheel, rapidocr_onnxruntime/models). Forms: `plain`, all gates taken out by the surgeon; `as deployed`;
`lowered`, by the passes of the engine and by what its backend does to gates. All forms run in alternating rounds of one
process; a figure is the median over rounds of a form's time over the plain form's time on the same engine in the same
round, with the 95 % interval of a bootstrap. Batch 1, fp32, two threads, at the size that each network is used at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "ocr.json"
PAGE = ROOT / "docs" / "free_se.md"
ENGINES = ("onnxruntime", "openvino")
FORMS = ("plain", "as deployed", "lowered")
REPEATS = 2
"""Timed runs of each in a round, after one that is not counted; the fastest counts."""
CONFIDENCE = 0.95
CLOSE = 1e-3
"""How far probabilities may be apart. The detector amplifies rounding: ONNX Runtime's optimisation moves its map."""


@dataclass(frozen=True)
class File:
    """One network, the size of the image that it is used at, and the gates that it has."""

    name: str
    size: tuple[int, int]
    gates: int


FILES = (
    File("ch_PP-OCRv4_det_infer", (640, 640), 10),
    File("ch_PP-OCRv4_rec_infer", (48, 320), 2),
    File("ch_ppocr_mobile_v2.0_cls_infer", (48, 192), 9),
)


def forms(file: File, source: Path) -> dict[str, object]:
    """The ONNX models without gates and as deployed; raises where another number of gates is found."""
    from sesurgery import pipeline, planner
    from sesurgery.onnxgraph import io
    from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

    shape = (3, *file.size)
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "onnx", "name": source.as_posix()},
            "input": {"shape": list(shape)},
            "surgery": [{"remove": "se"}],
        }
    )
    surgeon = OnnxSurgeon(shape)
    model = io.load(source)
    plan = planner.plan(spec, surgeon.view(model))
    if len(plan.removals) != file.gates:
        raise SystemExit(f"{file.name}: {len(plan.removals)} gates were found, not {file.gates}")
    return {"plain": surgeon.apply(model, plan), "as deployed": model}


def build(file: File, source: Path, folder: Path) -> dict[str, Callable[[], dict[str, object]]]:
    """Every form on every engine, loaded, by ENGINE.FORM."""
    from sesurgery.backends import BACKENDS
    from sesurgery.backends.base import BatchRange, BuildOptions
    from sesurgery.lowering import load
    from sesurgery.lowering.base import run
    from sesurgery.lowering.preparing import prepared
    from sesurgery.onnxgraph import io

    options = BuildOptions(batch=BatchRange(1, 1, 1), threads=THREADS)
    models = {form: sized(model, file.size) for form, model in forms(file, source).items()}
    runners = {}
    for engine in ENGINES:
        backend = BACKENDS.load(engine)()
        for form in FORMS:
            model = models["as deployed" if form == "lowered" else form]
            target, given = folder / f"{engine}.{form}{backend.suffix}", folder / "given.onnx"
            if form == "lowered":
                model = run(prepared(model, verify=False).model, load(backend.passes)).model
            io.save(model, given)
            if engine == "onnxruntime" and form != "lowered":
                optimised(given, target)
            else:
                backend.build(given, target, options)
            runners[f"{engine}.{form}"] = backend.load(target, THREADS)
    return runners


def sized(model, size: tuple[int, int]):
    """A copy for images of one size, single ones: what an engine is built for."""
    from sesurgery.onnxgraph.repair import repaired

    copy = repaired(model)
    dims = copy.graph.input[0].type.tensor_type.shape.dim
    for dim, length in zip(dims, (1, 3, *size), strict=True):
        dim.dim_value = length
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.dim_value:
                dim.Clear()
    return copy


def optimised(source: Path, target: Path) -> None:
    """What ONNX Runtime makes of a file by itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = THREADS
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def feed(runner, size: tuple[int, int]) -> dict[str, object]:
    """Lines of text, prepared as PaddleOCR does: dark on light, between -1 and 1. Without text a detector says zero."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    high, wide = size
    page = Image.new("RGB", (wide, high), (235, 232, 225))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=32)
    for row in range(max(1, high // 64)):
        draw.text((8, 4 + 64 * row), "Squeeze and excite 1709", fill=(30, 30, 40), font=font)
    pixels = (np.asarray(page, np.float32) / 255 - 0.5) / 0.5
    return {runner.inputs[0].name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}


def checked(runners, size: tuple[int, int]) -> dict[str, float]:
    """How far what is lowered is from what is deployed, by engine."""
    import numpy as np

    found = {}
    for engine in ENGINES:
        one, other = (
            next(iter(runners[f"{engine}.{form}"].infer(feed(runners[f"{engine}.{form}"], size)).values()))
            for form in FORMS[1:]
        )
        found[engine] = float(np.abs(one - other).max() / max(float(np.abs(one).max()), 1e-30))
    return found


def race(runners, size: tuple[int, int], rounds: int) -> dict[str, list[float]]:
    """Seconds in every round, by engine and form."""
    feeds = {name: feed(runner, size) for name, runner in runners.items()}
    for name, runner in runners.items():
        runner.time(feeds[name], 3)
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds):
        for name in list(runners) if number % 2 else list(runners)[::-1]:
            runners[name].time(feeds[name], 1)
            taken[name].append(min(runners[name].time(feeds[name], REPEATS)))
    return taken


def measure(folder: Path, rounds: int, check: bool) -> None:
    """Print the table, and write it down unless only outputs were compared."""
    import numpy as np
    from provenance import provenance
    from scipy.stats import bootstrap

    from sesurgery.artifacts import to_json, write_text
    from sesurgery.backends import BACKENDS

    taken, rows = provenance(), []
    for file in FILES:
        with tempfile.TemporaryDirectory() as scratch:
            runners = build(file, folder / f"{file.name}.onnx", Path(scratch))
            apart = checked(runners, file.size)
            for engine, value in apart.items():
                if not value <= CLOSE:
                    raise SystemExit(f"{file.name} on {engine}: lowered and deployed outputs are {value:.2g} apart")
            print(f"{file.name}: {file.gates} gates, lowered against deployed {apart}", flush=True)
            if check:
                continue
            times = {name: np.array(taken)[:, None] for name, taken in race(runners, file.size, rounds).items()}
        row: dict[str, object] = {"file": file.name, "size": file.size, "gates": file.gates, "rounds": rounds}
        row["load"], row["apart"] = os.getloadavg()[0], apart
        for engine in ENGINES:
            cells = []
            for form in FORMS[1:]:
                plain = times[f"{engine}.plain"]
                ratios = (times[f"{engine}.{form}"] / plain).ravel()
                # Within this process: the engines are loaded once.
                found = bootstrap((ratios,), np.median, confidence_level=CONFIDENCE, rng=0).confidence_interval
                middle = float(np.median(ratios))
                row[f"{engine}.{form}"] = [middle, float(found.low), float(found.high)]
                cells.append(f"{middle:.3f} ({found.low:.3f} to {found.high:.3f})")
            print(f"| {file.name} | {engine} | {' | '.join(cells)} |", flush=True)
        rows.append(row)
    if not check:
        known = {**taken, "threads": THREADS, "rows": rows}
        known["passes"] = {engine: list(BACKENDS.load(engine).passes) for engine in ENGINES}
        write_text(RESULTS, to_json(known))


def table() -> str:
    """The results as the page shows them."""
    data = json.loads(RESULTS.read_text())
    lines = ["| file | gates | image | engine | as deployed | lowered |", "|" + " --- |" * 6]
    for row in data["rows"]:
        for engine in ENGINES:
            cells = [f"`{row['file']}`", str(row["gates"]), " x ".join(map(str, row["size"])), engine]
            cells += ["{:.3f} ({:.3f} to {:.3f})".format(*row[f"{engine}.{form}"]) for form in FORMS[1:]]
            lines.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {data['versions'][name]}" for name in ENGINES)
    return "\n".join(
        [*lines, "", f"{data['device']}, {data['threads']} threads, {data['rows'][0]['rounds']} rounds; {versions}."]
    )


def write_table() -> None:
    """Write the table into the page, between its marks."""
    pattern = re.compile(r"(<!-- ocr -->\n).*?(\n<!-- end -->)", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda found: f"{found[1]}\n{table()}\n{found[2]}", PAGE.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the three files are")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--check", action="store_true", help="compare the outputs and measure nothing")
    parser.add_argument("--table", action="store_true", help="write the table of docs/free_se.md from the results")
    given = parser.parse_args()
    if given.table:
        write_table()
    elif given.folder is None:
        parser.error("name the folder of the three files")
    else:
        measure(given.folder, given.rounds, given.check)


if __name__ == "__main__":
    main()
