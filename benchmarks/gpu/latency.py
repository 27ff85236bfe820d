"""What SE costs in PyTorch, by whom it is written and how it is compiled.

    python benchmarks/gpu/latency.py                      SE-ResNet-50 on a CUDA GPU: fp16, batch 1, 8 and 64
    python benchmarks/gpu/latency.py --device cpu         the same on the CPU: fp32, batch 1 and 8
    python benchmarks/gpu/latency.py --device cpu --clock cpu     one thread's own time: for machines that others use
    python benchmarks/gpu/latency.py --smoke              a tiny network on the CPU: that all of it works

Networks: `plain` (timm's resnet), `timm` (timm's seresnet), `ours` (plain after surgery), `hoisted` (ours, its squeezes
taken before 1x1 convolutions) and `taps` (before spatial ones as well). Ways: `eager`, `compiled` (torch.compile),
`autotuned` (its mode max-autotune), `package` (the backend inductor), `onnxruntime` (fp32 only, on this device's
provider). All channels-last.

Within one way and batch, the networks run in alternating rounds in one process: a machine that slows down slows all of
them. A ratio is the median over rounds of a network's time over the plain one's in the same round. `least` is the bytes
that have to move at least: every map written once and read once by each convolution, pool, squeeze and sum that needs
it, and the weights; where the gate is not known before the map is, the map twice. GB/s is that over the time.
Weights are random: they do not change what is computed. `difference` is the largest one from the eager fp32 network,
relative to its largest output.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import json
import math
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

RESULTS = Path(__file__).resolve().parents[1] / "results"
NETWORKS = ("plain", "timm", "ours", "hoisted", "taps")
WAYS = ("eager", "compiled", "autotuned", "package", "onnxruntime")
LOWERING = {"hoisted": ("squeeze_hoist",), "taps": ("squeeze_hoist", "squeeze_hoist_spatial")}
Timer = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What is measured, and how."""

    device: str
    precision: str
    depth: str
    shape: tuple[int, int, int]
    batches: tuple[int, ...]
    ways: tuple[str, ...]
    networks: tuple[str, ...]
    rounds: int
    repeats: int
    threads: int
    clock: str


@dataclass(frozen=True)
class Row:
    """One network in one way at one batch."""

    way: str
    network: str
    batch: int
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    least_mb: float
    gb_per_s: float
    difference: float


def built(name: str, setting: Setting) -> nn.Module:
    """A network in evaluation, fp32, on the CPU, with random weights and norm statistics."""
    import timm

    import sesurgery

    torch.manual_seed(0)
    if setting.depth == "tiny":
        from timm.models.resnet import Bottleneck, ResNet

        network: nn.Module = ResNet(
            Bottleneck,
            (1, 1, 1, 1),
            num_classes=10,
            channels=(8, 16, 32, 64),
            stem_width=16,
            block_args={"attn_layer": "se"} if name == "timm" else {},
        )
    else:
        network = timm.create_model(("se" if name == "timm" else "") + setting.depth)
    if name not in ("plain", "timm"):
        network = sesurgery.insert(network, example_input=torch.zeros(1, *setting.shape), reduction=16)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


def as_module(name: str, network: nn.Module, setting: Setting) -> nn.Module:
    """The network as eager and compiled PyTorch run it: in half where asked for, channels-last, on the device."""
    from sesurgery.backends.inductor_package.build import HALVES
    from sesurgery.lowering.fx import lower
    from sesurgery.lowering.fx.layout import channels_last
    from sesurgery.lowering.fx.precision import to_half

    half = HALVES.get(setting.precision)
    if name in LOWERING:
        module = lower(network, setting.shape, (1, max(setting.batches)), LOWERING[name], verify=False).module
        if half is not None:
            to_half(module, half)
        channels_last(module)
        return module.to(setting.device)
    made = copy.deepcopy(network).to(setting.device, memory_format=torch.channels_last)
    return _HalfInside(made.to(half), half) if half is not None else made


class _HalfInside(nn.Module):
    """Takes and gives fp32, as every other contender does."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.to(self.dtype)).float()


def contender(way: str, name: str, network: nn.Module, batch: int, setting: Setting, folder: Path) -> tuple[Timer, Any]:
    """How to time a network, and its answer to the example."""
    image = example(batch, setting)
    if way == "onnxruntime":
        return _onnxruntime(name, network, image, setting, folder)
    if way == "package":
        run: Callable[[torch.Tensor], torch.Tensor] = _package(name, network, setting, folder)
    else:
        run = as_module(name, network, setting)
        if way != "eager":
            torch._dynamo.reset()
            run = torch.compile(run, mode="max-autotune" if way == "autotuned" else None)
    if way != "package":
        # A package takes the layout it was exported with, and does not look: it converts inside.
        image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        answer = run(image).float().cpu()
    return _torch_timer(run, image, setting), answer


def _package(name: str, network: nn.Module, setting: Setting, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    from torch._inductor import aoti_load_package

    from sesurgery.backends.base import BatchRange, BuildOptions
    from sesurgery.backends.inductor import Inductor
    from sesurgery.lowering.fx import lower

    path = folder / f"{name}.pt2"
    if not path.exists():
        batches = BatchRange(1, setting.batches[0], max(2, *setting.batches, 2))
        options = BuildOptions(precision=setting.precision, batch=batches)  # type: ignore[arg-type]
        lowered = lower(network, setting.shape, (1, batches.maximum), LOWERING.get(name, ()), verify=False)
        Inductor(target=setting.device).build_network(lowered.module, setting.shape, path, options)  # type: ignore[arg-type]
    run: Callable[[torch.Tensor], torch.Tensor] = aoti_load_package(str(path))
    return run


def _onnxruntime(
    name: str, network: nn.Module, image: torch.Tensor, setting: Setting, folder: Path
) -> tuple[Timer, Any]:
    from sesurgery.backends.base import BuildOptions
    from sesurgery.backends.onnxruntime import OnnxRuntime
    from sesurgery.networks.export import export
    from sesurgery.spec.export import Export

    file, engine = folder / f"{name}.onnx", folder / f"{name}.ort.onnx"
    backend = OnnxRuntime(provider=setting.device)  # type: ignore[arg-type]
    if not engine.exists():
        export(network, setting.shape, file, Export(max_abs=1e-2))
        backend.build(file, engine, BuildOptions())
    runner = backend.load(engine, setting.threads)
    feeds = {runner.inputs[0].name: image.cpu().numpy()}
    answer = torch.from_numpy(runner.infer(feeds)[runner.outputs[0].name])
    return lambda repeats: runner.time(feeds, repeats), answer


def _torch_timer(run: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, setting: Setting) -> Timer:
    clock = time.thread_time if setting.clock == "cpu" else time.perf_counter

    def on_cpu(repeats: int) -> np.ndarray:
        samples = np.empty(repeats)
        with torch.inference_mode():
            for index in range(repeats):
                start = clock()
                run(image)
                samples[index] = clock() - start
        return samples

    def on_gpu(repeats: int) -> np.ndarray:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        with torch.inference_mode():
            for start, end in events:
                start.record()
                run(image)
                end.record()
        torch.cuda.synchronize()
        return np.array([start.elapsed_time(end) * 1e-3 for start, end in events])

    return on_gpu if setting.device == "cuda" else on_cpu


def example(batch: int, setting: Setting) -> torch.Tensor:
    return torch.randn(batch, *setting.shape, generator=torch.Generator().manual_seed(2)).to(setting.device)


def least_bytes(name: str, network: nn.Module, setting: Setting, batch: int) -> int:
    """The bytes that one run has to move at least, as the module's docstring says."""
    from sesurgery.lowering.fx import graph, lower
    from sesurgery.lowering.fx.gates import squeezes
    from sesurgery.lowering.fx.graph import aten

    module = lower(network, setting.shape, (1, 64), LOWERING.get(name, ()), verify=False).module
    late = {squeeze.args[0] for squeeze in squeezes(module)}

    def values(node: Any) -> int:
        return math.prod(graph.shape_of(node)[1:]) * batch

    reading = (aten.conv2d.default, aten.linear.default, aten.mean.dim, aten.max_pool2d.default, aten.matmul.default)
    writing = (aten.conv2d.default, aten.linear.default, aten.max_pool2d.default)
    total = 0
    for node in module.graph.nodes:
        if node.op != "call_function" or not node.all_input_nodes:
            continue
        dims = graph.shape_of(node)
        if node.target in reading:
            total += values(node.args[0])
            total += sum(math.prod(graph.shape_of(arg)) for arg in node.all_input_nodes if arg.op == "get_attr")
        if node.target in writing or (node.target is aten.add.Tensor and len(dims) == 4):
            total += values(node)
        elif node.target is aten.mul.Tensor and len(dims) == 4 and late.intersection(node.all_input_nodes):
            total += 2 * values(node)
    return total * (2 if setting.precision in ("fp16", "bf16") else 4)


def measured(setting: Setting, say: Callable[[str], None]) -> Iterator[Row]:
    """All rows; a way or network that does not work here is said and left out."""
    networks = {name: built(name, setting) for name in setting.networks}
    least = functools.cache(lambda name, batch: least_bytes(name, networks[name], setting, batch))
    with tempfile.TemporaryDirectory() as temporary:
        for way in setting.ways:
            for batch in setting.batches:
                timers: dict[str, Timer] = {}
                differences: dict[str, float] = {}
                for name, network in networks.items():
                    if way == "onnxruntime" and name in LOWERING:
                        continue
                    try:
                        timers[name], answer = contender(way, name, network, batch, setting, Path(temporary))
                    except Exception as error:
                        say(f"{way}, {name}, batch {batch}: left out: {type(error).__name__}: {str(error)[:300]}")
                        continue
                    with torch.inference_mode():
                        expected = network(example(batch, setting).cpu())
                    differences[name] = float((answer - expected).abs().max() / expected.abs().max())
                seconds = _race(timers, setting)
                for name, rounds in seconds.items():
                    plain = seconds.get("plain", rounds)
                    yield _row(way, name, batch, rounds, plain, least(name, batch), differences[name])


def _race(timers: dict[str, Timer], setting: Setting) -> dict[str, np.ndarray]:
    """Each network's median of every round, seconds; the order turns around from round to round."""
    for timer in timers.values():
        timer(2)
    found: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(setting.rounds):
        for name in list(timers)[:: 1 if number % 2 == 0 else -1]:
            # The first run finds the caches full of another network.
            found[name].append(float(np.median(timers[name](setting.repeats + 1)[1:])))
    return {name: np.array(rounds) for name, rounds in found.items()}


def _row(way: str, name: str, batch: int, rounds: np.ndarray, plain: np.ndarray, least: int, difference: float) -> Row:
    low, middle, high = (float(value) * 1e3 for value in np.percentile(rounds, (25, 50, 75)))
    ratios = [float(value) for value in np.percentile(rounds / plain, (25, 50, 75))]
    bandwidth = least / (middle * 1e-3) / 1e9
    return Row(way, name, batch, middle, low, high, ratios[1], ratios[0], ratios[2], least / 1e6, bandwidth, difference)


def machine(setting: Setting) -> dict[str, object]:
    """What the figures are from."""
    from sesurgery.artifacts import cpu_name, versions

    found: dict[str, object] = {"cpu": cpu_name(), "system": platform.system(), "versions": versions()}
    if setting.device == "cuda":
        import subprocess

        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "compute_capability": capability,
            "driver": driver,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "triton": __import__("triton").__version__ if importlib.util.find_spec("triton") else None,
        }
    return found


def table(rows: list[Row]) -> str:
    lines = [
        "| way | network | batch | ms | over plain | least MB | GB/s | difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row.way} | {row.network} | {row.batch} | {row.median_ms:.3f} | "
            f"{row.ratio:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f}) | "
            f"{row.least_mb:.1f} | {row.gb_per_s:.1f} | {row.difference:.1e} |"
        )
    return "\n".join(lines)


def asked(arguments: list[str] | None = None) -> tuple[Setting, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny network on the CPU; writes nothing unless --output"
    )
    parser.add_argument("--depth", default="resnet50", help="timm's name of the plain network")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    device = "cpu" if given.smoke else given.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu measures the CPU, --smoke only tries all of it out")
    if given.clock == "cpu" and (device == "cuda" or "onnxruntime" in (given.ways or ())):
        parser.error("--clock cpu is for torch on the CPU: ONNX Runtime's threads are its own")
    left = {"autotuned" if device == "cpu" else "", "onnxruntime" if given.clock == "cpu" else ""}
    setting = Setting(
        device=device,
        precision=given.precision or ("fp16" if device == "cuda" else "fp32"),
        depth="tiny" if given.smoke else given.depth,
        shape=(3, 32, 32) if given.smoke else (3, 224, 224),
        batches=tuple(given.batch or ((1, 8, 64) if device == "cuda" else (3,) if given.smoke else (1, 8))),
        ways=tuple(given.ways or (way for way in WAYS if way not in left)),
        networks=tuple(given.networks or (NETWORKS if given.smoke else NETWORKS[:4])),
        rounds=2 if given.smoke else given.rounds,
        repeats=2 if given.smoke else given.repeats,
        threads=1 if given.clock == "cpu" or given.smoke else given.threads,
        clock=given.clock,
    )
    name = f"latency_{device}_{setting.depth}_{setting.precision}.json"
    return setting, given.output or (None if given.smoke else RESULTS / name)


def main() -> None:
    setting, output = asked()
    warnings.simplefilter("ignore")
    torch.set_num_threads(setting.threads)
    rows = []
    skipped: list[str] = []

    def say(text: str) -> None:
        skipped.append(text)
        print(text, flush=True)

    for row in measured(setting, say):
        rows.append(row)
        print(f"{row.way:12} {row.network:8} batch {row.batch:3} {row.median_ms:9.3f} ms  {row.ratio:.3f}", flush=True)
    print(table(rows))
    if output is not None:
        found = {
            "setting": asdict(setting),
            "machine": machine(setting),
            "rows": [asdict(row) for row in rows],
            "left_out": skipped,
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"-> {output}")


if __name__ == "__main__":
    main()
