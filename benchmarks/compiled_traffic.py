"""What channel attention costs in a compiled network: kernels, and activation bytes read and written.

    python benchmarks/compiled_traffic.py              all networks below; needs sesurgery[tensorrt-rtx] and no GPU
    python benchmarks/compiled_traffic.py resnet18     some
    python benchmarks/compiled_traffic.py --cpu        the same passes timed in ONNX Runtime
    python benchmarks/compiled_traffic.py --table      the tables of docs/free_se.md from the committed results

Every network is exported with random weights and norm statistics (neither changes what is compiled), plain, with SE as
torch exports it, and with SE lowered by the passes of `tensorrt-rtx`; for fp16, `precision` comes last in all three. A
batch that is fixed is fixed before the passes, which may look at it.
TensorRT-RTX compiles each ahead of time and lists its kernels; the figures are the same on every machine and in every
run. Weights and other constants are not counted. Beside them: the floor, which is the plain network's traffic plus one
read of the smallest map that each squeeze can be computed from, and the largest difference between the outputs of the
exported and the lowered network in ONNX Runtime, fp32, relative to the largest output.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "compiled_traffic.json"
PAGE = ROOT.parent / "docs" / "free_se.md"
NETWORKS = {
    "resnet50": "seresnet50",
    "resnet18": "seresnet18",
    "resnet34": "resnet34 + se",
    "resnet101": "resnet101 + se",
    "resnext50_32x4d": "seresnext50_32x4d",
    "mobilenetv3_large_100": "mobilenetv3_large_100",
    "efficientnet_b0": "efficientnet_b0",
    "regnety_008": "regnety_008",
    "regnety_032": "regnety_032",
}
"""Plain network -> the one with SE.

Where the names are the same, the plain one is it with its SE blocks taken out; with `+ se`, they are put in by
sesurgery.
"""
BLOCKS = ("SqueezeExcite", "SEModule")
"""What timm calls its SE blocks."""
FORMS = ("plain", "as exported", "lowered")


@dataclass(frozen=True)
class Mode:
    """How a network is compiled: with a fixed batch, or an open one whose profile is (min, opt, max)."""

    name: str
    batch: tuple[int, int, int]
    dynamic: bool


MODES = (
    Mode("batch 1", (1, 1, 1), dynamic=False),
    Mode("open, profile 1", (1, 1, 1), dynamic=True),
    Mode("batch 8", (8, 8, 8), dynamic=False),
    Mode("open, 1 to 64, at 8", (1, 8, 64), dynamic=True),
)


def exported(name: str, folder: Path, *, without_se: bool):
    """A network as an ONNX model."""
    return saved(timm_network(name, without_se=without_se), folder)


def timm_network(name: str, *, without_se: bool):
    """A network of timm with random weights and norm statistics, with its own SE, none, or ours (`NAME + se`)."""
    import timm
    import torch
    from torch import nn

    import sesurgery

    torch.manual_seed(0)
    name, _, ours = name.partition(" + ")
    network = timm.create_model(name).eval()
    if ours:
        network = sesurgery.insert(network, block=ours, at="residual", example_input=torch.zeros(1, 3, 224, 224)).eval()
    generator = torch.Generator().manual_seed(1)
    for module in list(network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        for child, inner in list(module.named_children()):
            if without_se and type(inner).__name__ in BLOCKS:
                setattr(module, child, nn.Identity())
    return network


def saved(network, folder: Path):
    """A network as an ONNX model, by way of a file in `folder`."""
    import onnx

    from sesurgery.networks.export import export
    from sesurgery.spec.export import Export

    path = folder / "net.onnx"
    export(network, (3, 224, 224), path, Export(check_batches=(1,), max_abs=1e-2))
    return onnx.load(path)


def with_batch(model, batch: int):
    """A copy whose inputs and outputs have a fixed batch."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]
    return copy


def compiled(model, precision: str, mode: Mode, folder: Path) -> dict[str, object]:
    """Kernels and bytes of one network compiled in one way."""
    import onnx

    from sesurgery.backends.base import BatchRange, BuildOptions
    from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
    from sesurgery.lowering.base import run
    from sesurgery.lowering.precision.half import Precision

    if precision == "fp16":
        model = run(model, [Precision()]).model
    path = folder / "compiled.onnx"
    onnx.save(model if mode.dynamic else with_batch(model, mode.batch[0]), path)
    found = TensorRTForRTX().compile_kernels(path, BuildOptions(precision, BatchRange(*mode.batch)))
    return {"kernels": len(found.kernels), "bytes": found.traffic, "fusions": found.fusions}


def squeezed(model) -> int:
    """Values a sample that all squeezes of a lowered network read."""
    from sesurgery.lowering.squeezes import squeezes
    from sesurgery.onnxgraph.dataflow import Dataflow

    flow = Dataflow(model)
    count = 0
    for node in squeezes(flow):
        while node.op_type in ("Transpose", "Reshape", "MatMul", "Mul", "ReduceMean", "GlobalAveragePool"):
            # A product of two computed values (SiLU) is a map of its own.
            (name, *others) = [name for name in node.input if flow.is_data(name)]
            if others or name not in flow.producer:
                break
            node = flow.producer[name]
        count += math.prod(flow.shape(node.output[0])[1:])
    return count


def measured(plain: str, folder: Path) -> Iterator[dict[str, object]]:
    """A row for every precision and mode of one network."""
    from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
    from sesurgery.lowering import load
    from sesurgery.lowering.base import run
    from sesurgery.onnxgraph import numerics as _numerics

    name = NETWORKS[plain]
    given, base = exported(name, folder, without_se=False), exported(plain, folder, without_se=plain == name)
    # A pass may look at the batch: a file with a fixed one is lowered with it.
    files = {mode: given if mode.dynamic else with_batch(given, mode.batch[0]) for mode in MODES}
    lowered = {mode: run(file, load(TensorRTForRTX.passes)) for mode, file in files.items()}
    differences = {}
    for mode, file in files.items():
        fed = _numerics.feeds(file)
        found = _numerics.outputs(lowered[mode].model, fed)
        differences[mode] = _numerics.difference(_numerics.outputs(file, fed), found)
    for precision in ("fp32", "fp16"):
        for mode in MODES:
            row: dict[str, object] = {"network": name, "precision": precision, "mode": mode.name}
            models = dict(zip(FORMS, (base, files[mode], lowered[mode].model), strict=True))
            row |= {form: compiled(model, precision, mode, folder) for form, model in models.items()}
            reads = squeezed(lowered[mode].model) * mode.batch[1] * (4 if precision == "fp32" else 2)
            row |= {"floor": row["plain"]["bytes"] + reads}  # type: ignore[index]
            row |= {"difference": differences[mode], "edits": sum(edit.changed for edit in lowered[mode].edits)}
            yield row


def cpu(networks: list[str]) -> None:
    """Print what the passes bring in ONNX Runtime: medians of times over the plain network's, taken in turn."""
    import time

    import numpy as np
    import onnxruntime

    from sesurgery.lowering import load
    from sesurgery.lowering.base import run
    from sesurgery.onnxgraph import numerics as _numerics

    hoists = ("squeeze_hoist", "squeeze_hoist_spatial")
    steps: dict[str, tuple[str, ...]] = {"layout": ("squeeze_layout",), "hoists": hoists, "pool": ("squeeze_pool",)}
    steps |= {"hoists, pool": (*hoists, "squeeze_pool"), "hoists, epilogue": (*hoists, "gate_epilogue")}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    # Else the threads of one session spin on while the next one is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for plain in networks:
        with tempfile.TemporaryDirectory() as folder:
            given = exported(NETWORKS[plain], Path(folder), without_se=False)
            models = {"plain": exported(plain, Path(folder), without_se=plain == NETWORKS[plain]), "exported": given}
        models |= {name: run(given, load(passes)).model for name, passes in steps.items()}
        fed = {name: value[:1] for name, value in _numerics.feeds(given).items()}
        sessions = {key: onnxruntime.InferenceSession(m.SerializeToString(), options) for key, m in models.items()}
        seconds: dict[str, list[float]] = {key: [] for key in sessions}
        for _ in range(60):
            for key, session in sessions.items():
                started = time.perf_counter()
                session.run(None, fed)
                seconds[key].append(time.perf_counter() - started)
        base = np.array(seconds["plain"])
        ratios = {key: f"{np.median(np.array(taken) / base):.3f}" for key, taken in seconds.items()}
        print(NETWORKS[plain], ratios, flush=True)


def measure(networks: list[str]) -> None:
    """Compile the networks and write the results down, those there are of others kept."""
    from provenance import provenance

    from sesurgery.artifacts import to_json, write_text
    from sesurgery.backends.tensorrt_rtx import TensorRTForRTX

    warnings.filterwarnings("ignore")
    taken = provenance()
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    for plain in networks:
        rows = [row for row in rows if row["network"] != NETWORKS[plain]]
        with tempfile.TemporaryDirectory() as folder:
            for row in measured(plain, Path(folder)):
                rows.append(row)
                print(*_cells(row), sep=" | ", flush=True)
    backend = TensorRTForRTX()
    order = list(NETWORKS.values())
    data = {
        **taken,
        "versions": {**taken["versions"], "tensorrt_rtx": backend.probe().version},
        "targets": list(backend.capabilities),
        "passes": list(backend.passes),
        "rows": sorted(rows, key=lambda row: order.index(row["network"])),
    }
    write_text(RESULTS, to_json(data))


def _cells(row: dict) -> list[str]:
    plain = row["plain"]["bytes"]
    forms = [
        f"{row[form]['kernels']} / {row[form]['bytes'] / 1e6:.1f}"
        + ("" if form == "plain" else f" ({(row[form]['bytes'] / plain - 1) * 100:+.1f} %)")
        for form in FORMS
    ]
    return [row["network"], row["precision"], row["mode"], *forms, f"{(row['floor'] / plain - 1) * 100:+.1f} %"]


def table() -> None:
    """Write the tables into the page, between their marks."""
    data = json.loads(RESULTS.read_text())
    head = ["network", "precision", "compiled for", *FORMS, "floor"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in data["rows"]]
    checks = ["| network | places changed | with batch 1 | largest relative difference, fp32 |", "|" + " --- |" * 4]
    for name in dict.fromkeys(row["network"] for row in data["rows"]):
        rows = [row for row in data["rows"] if row["network"] == name]
        edits = {row["mode"]: row["edits"] for row in rows}
        largest = max(row["difference"] for row in rows)
        checks.append(f"| {name} | {edits[MODES[-1].name]} | {edits[MODES[0].name]} | {largest:.1e} |")
    versions = ", ".join(f"{key} {data['versions'][key]}" for key in ("tensorrt_rtx", "torch", "onnx", "timm"))
    page = PAGE.read_text()
    for mark, text in (
        ("traffic", "\n".join(lines)),
        ("outputs", "\n".join(checks)),
        ("versions", f"Versions: {versions}."),
    ):
        pattern = re.compile(rf"(<!-- {mark} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", page)  # type: ignore[misc]
    PAGE.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/free_se.md from the results")
    parser.add_argument("--cpu", action="store_true", help="time the passes in ONNX Runtime instead, and only print")
    given = parser.parse_args()
    if given.table:
        table()
        return
    if unknown := set(given.networks) - set(NETWORKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NETWORKS)}")
    (cpu if given.cpu else measure)(given.networks or list(NETWORKS))


if __name__ == "__main__":
    main()
