"""What surgery on large ONNX files costs: time against nodes, memory against weights.

    python benchmarks/onnx_scale.py                 all parts (about 5 GB of disk under the temporary folder)
    python benchmarks/onnx_scale.py --only growth     one part; the results of the others stay

Growth: residual networks of about 2,500, 5,000 and 10,000 nodes with 250, 500 and 1,000 sites, interleaved, the best of
three rounds; each step's CPU time of one thread and its ratio to the smallest. Linear growth gives 1x, 2x, 4x.

Widths: a plain network of 32 convolutions of 32 widths, a site behind each; the CPU time of the first site's block,
which is exported, and that of each other width, the mean. Afterwards every block was compared with its module.

Memory: a file of more than 2 GiB whose weights lie in three data files takes identity blocks through `apply`, in a
process of its own whose peak resident memory is read at its end, the interpreter and its libraries included; beside it
that of a process that only imports them. Then the changed file's outputs are compared with the given one's.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import queue
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sesurgery.artifacts import to_json, write_text

RESULTS = Path(__file__).resolve().parent / "results" / "onnx_scale.json"
ROUNDS = 3
SITES = (250, 500, 1000)
CHANNELS, UNITS, DATA_FILES = 1024, 15, 3
INSERT = {"block": "se", "init": "identity"}
WIDTHS = tuple(range(16, 528, 16))
BLOCKS = ("se", "effective_se", "eca", "cbam", "scse", "gather_excite")


def residual_network(units: int, channels: int, size: int, kernel: int) -> onnx.ModelProto:
    """Units of four convolutions with their activations, a sum and an activation; no weights yet."""
    nodes, value = [], "image"
    weights: list[tuple[str, tuple[int, ...]]] = []
    for unit in range(units):
        first, path = value, f"layer.{unit}"
        for index in range(4):
            weights.append((f"{path}.conv{index}.weight", (channels, channels, kernel, kernel)))
            conv, act = f"{path}.c{index}", f"{path}.a{index}"
            pads = [kernel // 2] * 4
            nodes.append(helper.make_node("Conv", [value, weights[-1][0]], [conv], pads=pads, name=conv))
            nodes.append(helper.make_node("Relu", [conv], [act]))
            value = act
        nodes.append(helper.make_node("Add", [conv, first], [f"{path}.sum"]))
        nodes.append(helper.make_node("Relu", [f"{path}.sum"], [f"{path}.out"]))
        value = f"{path}.out"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, size, size])
        for name in ("image", value)
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:])
    for name, dims in weights:
        graph.initializer.add(name=name, dims=dims, data_type=TensorProto.FLOAT)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def small_network(units: int) -> onnx.ModelProto:
    model, rng = residual_network(units, 8, 8, 1), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = rng.normal(0, 0.1, tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def large_file(folder: Path) -> tuple[Path, int]:
    """A network with its weights in several files, and the bytes of all of them."""
    model, rng = residual_network(UNITS, CHANNELS, 8, 3), np.random.default_rng(0)
    values = rng.normal(0, 0.003, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    path, total = folder / "net.onnx", 0
    streams = [(folder / f"weights{index}.data").open("wb") for index in range(DATA_FILES)]
    for index, tensor in enumerate(model.graph.initializer):
        stream = streams[index % DATA_FILES]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", Path(stream.name).name),
            ("offset", stream.tell()),
            ("length", values.nbytes),
        ):
            tensor.external_data.add(key=key, value=str(value))
        stream.write(np.roll(values, index, axis=0).tobytes())
        total += values.nbytes
    for stream in streams:
        stream.close()
    path.write_bytes(model.SerializeToString())
    return path, total + path.stat().st_size


def rules(source: str, channels: int) -> object:
    from sesurgery import pipeline

    return pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "onnx", "name": source},
            "input": {"shape": [channels, 8, 8]},
            "surgery": [{"insert": INSERT, "at": "residual"}],
        }
    )


def timed(work: Callable[[], object]) -> tuple[float, object]:
    gc.collect()
    gc.disable()
    try:
        started = time.process_time()
        result = work()
        return time.process_time() - started, result
    finally:
        gc.enable()


def growth() -> list[dict[str, float]]:
    """Seconds of each step on networks of one, two and four sizes, in turn."""
    import torch

    from sesurgery import planner
    from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

    torch.set_num_threads(1)
    told = rules("none", 8)
    networks = [small_network(units) for units in SITES]
    rows: list[dict[str, float]] = [
        {"sites": units, "nodes": len(model.graph.node)} for units, model in zip(SITES, networks, strict=True)
    ]
    surgeon = OnnxSurgeon((8, 8, 8))
    # The one export of the block is not part of what grows.
    surgeon.apply(networks[0], planner.plan(told, surgeon.view(networks[0])))
    for _ in range(ROUNDS):
        for row, model in zip(rows, networks, strict=True):
            view_s, view = timed(lambda model=model: surgeon.view(model))
            plan_s, plan = timed(lambda view=view: planner.plan(told, view))
            apply_s, _ = timed(lambda model=model, plan=plan: surgeon.apply(model, plan))
            if len(plan.sites) != row["sites"]:
                raise SystemExit(f"{len(plan.sites)} sites, not {row['sites']}")
            for name, seconds in (("view", view_s), ("plan", plan_s), ("apply", apply_s)):
                row[name] = min(row.get(name, seconds), seconds)
    return rows


def widths() -> list[dict[str, object]]:
    """Seconds of the first width and of each other, by block."""
    import torch

    from sesurgery import pipeline, planner
    from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

    torch.set_num_threads(1)
    model, rows = plain_network(WIDTHS), []
    for block in BLOCKS:
        insert = [{"insert": block, "at": "conv", "expect": len(WIDTHS)}]
        given = {"version": 1, "model": {"source": "onnx", "name": "none"}, "input": {"shape": [3, 8, 8]}}
        stamps: list[float] = []
        surgeon = OnnxSurgeon((3, 8, 8), lambda *_, stamps=stamps: stamps.append(time.process_time()))
        plan = planner.plan(pipeline.load_spec({**given, "surgery": insert}), surgeon.view(model))
        surgeon.apply(model, plan)
        each = np.diff(stamps)
        rows.append({"block": block, "first": float(each[0]), "width": float(each[1:].mean())})
    return rows


def plain_network(channels: Sequence[int]) -> onnx.ModelProto:
    """A convolution and an activation for each width."""
    nodes, weights, value, before = [], [], "image", 3
    rng = np.random.default_rng(0)
    for index, width in enumerate(channels):
        values = rng.normal(0, before**-0.5, (width, before, 1, 1)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"layer.{index}.weight"))
        nodes.append(helper.make_node("Conv", [value, weights[-1].name], [f"c{index}"], name=f"c{index}"))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"a{index}"]))
        value, before = f"a{index}", width
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width, 8, 8])
        for name, width in (("image", 3), (value, before))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _operate(path: Path, out: Path, answers: multiprocessing.Queue) -> None:
    from sesurgery import pipeline

    started = time.perf_counter()
    applied = pipeline.apply_onnx(
        pipeline.FileRequest(rules(str(path), CHANNELS), pipeline.Workspace(out.parent), "net.yaml", out=out)
    )
    answers.put((_peak(), time.perf_counter() - started, len(applied.planned.plan.sites)))


def _import_only(answers: multiprocessing.Queue) -> None:
    import onnxscript.optimizer  # noqa: F401

    from sesurgery import pipeline  # noqa: F401
    from sesurgery.surgeons.onnx import surgeon as _onnx  # noqa: F401

    answers.put(_peak())


def _run(path: Path, answers: multiprocessing.Queue) -> None:
    import onnxruntime

    image = np.random.default_rng(1).normal(size=(1, CHANNELS, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers.put(session.run(None, {"image": image})[0])


def apart(work: Callable[..., None], *given: object) -> object:
    """What a process of its own puts into the queue."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=work, args=(*given, answers))
    process.start()
    while True:
        try:
            found = answers.get(timeout=5)
            break
        except queue.Empty:
            if not process.is_alive():
                raise SystemExit(f"{work.__name__} ended with {process.exitcode}") from None
    process.join()
    return found


def memory() -> dict[str, float]:
    """Peak resident memory of surgery on a file of more than 2 GiB, and what changed in its outputs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, total = large_file(folder)
        out = folder / "out" / "changed.onnx"
        peak, seconds, sites = apart(_operate, path, out)
        imported = apart(_import_only)
        before, after = apart(_run, path), apart(_run, out)
        difference = float(np.abs(before - after).max() / np.abs(before).max())
    return {
        "bytes": total,
        "sites": sites,
        "peak_bytes": peak,
        "imports_alone_bytes": imported,
        "peak_over_size": peak / total,
        "seconds": seconds,
        "difference": difference,
    }


def main() -> None:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("growth", "widths", "memory"))
    only = parser.parse_args().only
    # Of one part measured anew, its own origin is kept beside it.
    data = provenance() if only is None else {**json.loads(RESULTS.read_text()), f"{only}_from": provenance()}
    if only in (None, "growth"):
        data["growth"] = rows = growth()
        for row in rows:
            steps = ("view", "plan", "apply")
            ratios = ", ".join(f"{step} {row[step]:.3f} s ({row[step] / rows[0][step]:.1f}x)" for step in steps)
            print(f"{row['nodes']} nodes, {row['sites']} sites: {ratios}", flush=True)
    if only in (None, "widths"):
        data["widths"] = rows = widths()
        for row in rows:
            print(f"{row['block']}: first width {row['first']:.2f} s, each other {row['width']:.3f} s", flush=True)
    if only in (None, "memory"):
        data["memory"] = found = memory()
        print(
            f"{found['bytes'] / 2**30:.2f} GiB, {found['sites']} sites: peak {found['peak_bytes'] / 2**30:.2f} GiB, "
            f"{found['peak_over_size']:.2f} x the file, {found['seconds']:.0f} s; imports alone "
            f"{found['imports_alone_bytes'] / 2**30:.2f} GiB; outputs differ by {found['difference']:.2g}"
        )
    write_text(RESULTS, to_json(data))


if __name__ == "__main__":
    main()
