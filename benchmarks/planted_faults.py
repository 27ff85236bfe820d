"""Does a verification find what is wrong? Faults are planted in small networks; it has to say that, what and where.

    python benchmarks/planted_faults.py                         11 kinds of faults, seven seeds each, and 21 with none
    python benchmarks/planted_faults.py --seeds 1 --only wiring

A trial takes a small network with SE, plants a fault in its export, builds an engine of that with ONNX Runtime, and
asks what `sesurgery verify` asks: is it within the default tolerances at batch 1, 2, 3, what kind of fault is it, and
at which block does it begin. Networks differ in depth, shape, weights and images from seed to seed. A stale engine is
refused by the digests of its files, before anything runs; that trial goes through the pipeline. The engine in fp16 runs
as its file says: the CPU provider has no fp16 kernels and would compute it in fp32, where nothing overflows.

The results go to benchmarks/results/planted_faults.json; docs/verification.md shows them.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import nn

from sesurgery import pipeline
from sesurgery.artifacts import to_json, write_text
from sesurgery.backends.base import BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.lowering.base import run as lower
from sesurgery.lowering.precision.half import Precision
from sesurgery.lowering.precision.int8 import Quantize, ranges_of
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.networks.export import export
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.half_meaning import in_single
from sesurgery.onnxgraph.scopes import scope_of
from sesurgery.spec import GivenSurgery, load_rule
from sesurgery.spec.export import Export
from sesurgery.spec.parity import Parity
from sesurgery.training.evaluation import logits
from sesurgery.verification import diagnosis, engine_drift
from sesurgery.verification.chain import Links, diagnose
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.parity import compare
from sesurgery.verification.predicting import predict
from sesurgery.workspace.freshness import StaleEngine

RESULTS = Path(__file__).resolve().parent / "results" / "planted_faults.json"
SEEDS = 7
SAMPLES = 48
LOOKED_AT = 6
"""Samples that the search for the place runs on, the worst among them."""
BATCHES = (1, 2, 3)
SHAPES = ((3, 32, 32), (3, 24, 40), (3, 32, 32))
DEPTHS = (8, 14, 8)
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Victim:
    """A network with SE, its export, its blocks' modules by key, and images with the labels of its own answers."""

    network: nn.Module
    file: ModelProto
    modules: Mapping[str, str]
    images: Images
    labels: NDArray[np.int64]

    def model(self, images: Images) -> NDArray[np.generic]:
        return logits(self.network, [torch.from_numpy(np.ascontiguousarray(images))]).numpy()


@dataclass(frozen=True)
class Planted:
    """The files of an engine with a fault. `kinds` are its right names, `site` where it is, if it has a place."""

    exported: ModelProto
    kinds: tuple[str, ...]
    site: str | None = None
    source: ModelProto | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class Trial:
    """What was planted and what was said."""

    fault: str
    seed: int
    caught: bool
    kind: str | None
    site: str | None
    text: str
    expected: tuple[str, ...]
    place: str | None

    @property
    def named(self) -> bool:
        return self.kind in self.expected

    @property
    def located(self) -> bool | None:
        """Whether the block was named; None where the fault has no place."""
        return None if self.place is None else self.site == self.place


def victim(seed: int) -> Victim:
    """The network of a seed; its norms are as a training leaves them, so that every block matters."""
    torch.manual_seed(seed)
    shape = SHAPES[seed % len(SHAPES)]
    plain = CifarResNet(depth=DEPTHS[seed % len(DEPTHS)], in_channels=shape[0])
    rule = load_rule({"insert": {"block": "se", "reduction": 4}, "at": "residual"}, pipeline.catalogs())
    opened = TorchNetwork(plain, shape)
    plan = opened.plan(GivenSurgery((rule,)))
    network = opened.apply(plan).module.eval()
    random = np.random.default_rng(seed)
    images = np.stack([numerics.random_image(random, shape) for _ in range(SAMPLES)]).astype(np.float32)
    # Images of one brightness would look the same after the first norm.
    images = (images * random.uniform(0.5, 1.5, (SAMPLES, 1, 1, 1))).astype(np.float32)
    images += random.normal(0, 0.5, (SAMPLES, shape[0], 1, 1)).astype(np.float32)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.4)
                module.bias.normal_(0, 0.2)
        for site in plan.sites:
            # A fresh gate is one half for every image: a trained one is not.
            for layer in network.get_submodule(site.module).modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.mul_(4)
        network.train()
        network(torch.from_numpy(images))
        network.eval()
        # Logits that differ from image to image, as a training makes them.
        answers = network(torch.from_numpy(images))
        scale = 3 / answers.std(0)
        network.fc.weight.mul_(scale[:, None])
        network.fc.bias.copy_(network.fc.bias * scale - answers.mean(0) * scale)
    with tempfile.TemporaryDirectory() as folder:
        export(network, shape, Path(folder) / "net.onnx", Export())
        file = onnx.load(Path(folder) / "net.onnx")
    answers = logits(network, [torch.from_numpy(images)]).numpy().argmax(1)
    return Victim(network, file, {site.key: site.module for site in plan.sites}, images, answers)


def copy_of(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def scaling(model: ModelProto, module: str) -> NodeProto:
    """The product of a block: a map with its gate."""
    (node,) = (node for node in model.graph.node if node.op_type == "Mul" and scope_of(node) == module)
    return node


def weight(model: ModelProto, name: str) -> onnx.TensorProto:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return tensor


def set_weight(model: ModelProto, name: str, values: NDArray[np.generic]) -> None:
    weight(model, name).CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def insert_behind(model: ModelProto, node: NodeProto, nodes: Sequence[NodeProto]) -> None:
    """Put nodes behind one that has a new output by now, as parts of its module."""
    position = list(model.graph.node).index(node)
    for offset, new in enumerate(nodes, start=1):
        new.metadata_props.extend(node.metadata_props)
        model.graph.node.insert(position + offset, new)


def constant(model: ModelProto, name: str, values: object) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return name


def pick(victim: Victim, random: np.random.Generator) -> tuple[str, str]:
    """A block: its key and module."""
    key = list(victim.modules)[int(random.integers(len(victim.modules)))]
    return key, victim.modules[key]


def weights_shuffled(victim: Victim, random: np.random.Generator) -> Planted:
    file, (key, module) = copy_of(victim.file), pick(victim, random)
    for name in (f"{module}.fc1.weight", f"{module}.fc2.weight"):
        values = numpy_helper.to_array(weight(file, name))
        set_weight(file, name, random.permutation(values.ravel()).reshape(values.shape))
    return Planted(file, ("weights",), key)


def another_checkpoint(victim: Victim, random: np.random.Generator) -> Planted:
    """Every weight as another training would leave it: of the same size, and another one."""
    file = copy_of(victim.file)
    for tensor in [each for each in file.graph.initializer if "." in each.name]:
        values = numpy_helper.to_array(tensor)
        # A norm's variances stay positive.
        other = random.permutation(values.ravel()).reshape(values.shape) * random.uniform(0.7, 1.4, values.shape)
        set_weight(file, tensor.name, other.astype(values.dtype))
    return Planted(file, ("weights",))


def overflow(victim: Victim, random: np.random.Generator) -> Planted:
    """A map is multiplied before a block's end and divided again: nothing in fp32, infinite in fp16."""
    file, (key, module) = copy_of(victim.file), pick(victim, random)
    node = scaling(file, module)
    value = node.output[0]
    node.output[0] = "planted:map"
    # Each factor is within fp16: what is beyond it is the map.
    up, down = constant(file, "planted.up", 2.0**13), constant(file, "planted.down", 2.0**-13)
    nodes = [
        helper.make_node("Mul", ["planted:map", up], ["planted:large"], name="planted_up"),
        helper.make_node("Mul", ["planted:large", up], ["planted:larger"], name="planted_more"),
        helper.make_node("Mul", ["planted:larger", down], ["planted:smaller"], name="planted_less"),
        helper.make_node("Mul", ["planted:smaller", down], [value], name="planted_down"),
    ]
    insert_behind(file, node, nodes)
    half = lower(file, [Precision("fp16")]).model
    return Planted(victim.file, ("precision",), key, half, "fp16")


def batch_averaged(victim: Victim, random: np.random.Generator) -> Planted:
    """A squeeze that takes the mean over the batch as well."""
    file, (key, module) = copy_of(victim.file), pick(victim, random)
    squeeze = _squeeze(file, module)
    squeeze.input[1] = "planted.axes"
    file.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "planted.axes"))
    return Planted(file, ("batch",), key)


def labels_swapped(victim: Victim, random: np.random.Generator) -> Planted:
    file = copy_of(victim.file)
    first, second = random.choice(10, 2, replace=False)
    for name in ("fc.weight", "fc.bias"):
        values = numpy_helper.to_array(weight(file, name)).copy()
        values[[first, second]] = values[[second, first]]
        set_weight(file, name, values)
    return Planted(file, ("labels",))


def channels_swapped(victim: Victim, random: np.random.Generator) -> Planted:
    file = copy_of(victim.file)
    order = [2, 1, 0] if random.random() < 0.5 else [1, 2, 0]
    set_weight(file, "conv1.weight", numpy_helper.to_array(weight(file, "conv1.weight"))[:, order])
    return Planted(file, ("preprocessing",))


def left_out(victim: Victim, random: np.random.Generator) -> Planted:
    file, (key, module) = copy_of(victim.file), pick(victim, random)
    node = scaling(file, module)
    for reader in file.graph.node:
        for place, name in enumerate(reader.input):
            if name == node.output[0]:
                reader.input[place] = node.input[0]
    for gone in [each for each in file.graph.node if (scope_of(each) or "").startswith(module)]:
        file.graph.node.remove(gone)
    return Planted(file, ("wiring",), key)


def gate_constant(victim: Victim, random: np.random.Generator) -> Planted:
    """A gate's mean over the images in its place."""
    file, (key, module) = copy_of(victim.file), pick(victim, random)
    node = scaling(file, module)
    gate = node.input[1]
    seen = copy_of(victim.file)
    seen.graph.output.append(helper.make_tensor_value_info(gate, onnx.TensorProto.FLOAT, None))
    values = numerics.runner(seen)({seen.graph.input[0].name: victim.images})[gate]
    node.input[1] = constant(file, "planted.gate", values.mean(0, keepdims=True))
    return Planted(file, ("wiring",), key)


def saturated(victim: Victim, random: np.random.Generator) -> Planted:
    """The range of the map that a block scales is a small part of what it reaches."""
    key, module = pick(victim, random)
    feeds = [{victim.file.graph.input[0].name: victim.images[index : index + 1]} for index in range(SAMPLES)]
    ranges = dict(ranges_of(victim.file, feeds, "minmax"))
    value = scaling(victim.file, module).input[0]
    low, high = ranges[value]
    ranges[value] = (low / 16, high / 16)
    source = lower(victim.file, [Quantize(ranges, "uint8", 7)]).model
    return Planted(victim.file, ("saturation",), key, source, "int8")


def nan_in_one(victim: Victim, random: np.random.Generator) -> Planted:
    """A block's end is NaN for the image that is brightest there: zero times the logarithm of what is below zero."""
    file, (key, module) = copy_of(victim.file), pick(victim, random)
    node = scaling(file, module)
    seen = copy_of(victim.file)
    seen.graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    means = numerics.runner(seen)({seen.graph.input[0].name: victim.images})[node.output[0]].mean((1, 2, 3))
    top, next_ = sorted(means.tolist(), reverse=True)[:2]
    middle, nought = constant(file, "planted.middle", (top + next_) / 2), constant(file, "planted.nought", 0.0)
    axes = "planted.axes"
    file.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3]), axes))
    value = node.output[0]
    node.output[0] = "planted:map"
    nodes = [
        helper.make_node("ReduceMean", ["planted:map", axes], ["planted:mean"], name="planted_mean"),
        helper.make_node("Sub", [middle, "planted:mean"], ["planted:room"], name="planted_room"),
        helper.make_node("Log", ["planted:room"], ["planted:log"], name="planted_log"),
        helper.make_node("Mul", ["planted:log", nought], ["planted:zero"], name="planted_zero"),
        helper.make_node("Add", ["planted:map", "planted:zero"], [value], name="planted_end"),
    ]
    insert_behind(file, node, nodes)
    return Planted(file, ("nonfinite",), key)


def _squeeze(model: ModelProto, module: str) -> NodeProto:
    (node,) = (node for node in model.graph.node if node.op_type == "ReduceMean" and scope_of(node) == module)
    return node


FAULTS: dict[str, Callable[[Victim, np.random.Generator], Planted]] = {
    "one block's weights shuffled": weights_shuffled,
    "weights of another checkpoint": another_checkpoint,
    "a node that overflows fp16": overflow,
    "right at batch 1, wrong at 2": batch_averaged,
    "two labels swapped": labels_swapped,
    "input channels swapped": channels_swapped,
    "one site left out": left_out,
    "a gate replaced by its mean": gate_constant,
    "int8 saturation": saturated,
    "NaN in one sample": nan_in_one,
}
STALE = "a stale engine"
NONE = "no fault"


def none(victim: Victim, random: np.random.Generator) -> Planted:
    """An honest engine, in a precision of its own from seed to seed."""
    precision = ("fp32", "fp16", "int8")[int(random.integers(3))]
    if precision == "fp16":
        return Planted(victim.file, (), None, lower(victim.file, [Precision("fp16")]).model, "fp16")
    if precision == "int8":
        feeds = [{victim.file.graph.input[0].name: victim.images[index : index + 1]} for index in range(SAMPLES)]
        ranges = ranges_of(victim.file, feeds, "minmax")
        return Planted(victim.file, (), None, lower(victim.file, [Quantize(ranges, "uint8", 7)]).model, "int8")
    return Planted(victim.file, ())


def judge(victim: Victim, planted: Planted) -> tuple[bool, Diagnosis | None]:
    """Whether the engine falls short of the default tolerances, and what is said of it then."""
    source = planted.source or planted.exported
    links = Links(victim.file, planted.exported, source, planted.precision, victim.modules)
    backend, options = OnnxRuntime(), BuildOptions(planted.precision)  # type: ignore[arg-type]
    reference = victim.model(victim.images)
    tolerance = getattr(Parity(), planted.precision)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if planted.precision == "fp16":
            run = numerics.runner(in_single(source))
            given = {
                batch: np.concatenate(
                    [
                        run({source.graph.input[0].name: victim.images[start : start + batch]})["logits"]
                        for start in range(0, SAMPLES, batch)
                    ]
                )
                for batch in BATCHES
            }
        else:
            onnx.save(source, Path(folder) / "net.onnx")
            engine = Path(folder) / "engine.onnx"
            backend.build(Path(folder) / "net.onnx", engine, options)
            runner = stack.enter_context(backend.load(engine, 1))
            given = {batch: predict(runner, victim.images, batch) for batch in BATCHES}
        reports = {batch: compare(reference, given[batch], victim.labels, tolerance) for batch in BATCHES}
        if all(report.passed for report in reports.values()):
            return False, None
        passed = {batch: report.passed for batch, report in reports.items()}
        told = diagnosis.of_answers(victim.model, victim.images, reference, given, passed)
        errors = np.array([report.sample_errors for report in reports.values()]).max(0)
        worst = np.argsort(-errors, kind="stable")[:LOOKED_AT]
        images = victim.images[np.sort(worst)]
        suspect = engine_drift.of_backend(links, backend, options)
        single = [images[index : index + 1] for index in range(len(images))]
        return True, diagnose(links, told, images, lambda: engine_drift.drift(suspect, single))


def trial(fault: str, seed: int, of: Victim) -> Trial:
    """Plant a fault in the network of a seed, and ask."""
    plant = none if fault == NONE else FAULTS[fault]
    # Each fault of a seed has a block of its own choice.
    planted = plant(of, np.random.default_rng([seed, len(fault)]))
    caught, found = judge(of, planted)
    kind, site, text = (found.kind, found.site, str(found)) if found else (None, None, "")
    return Trial(fault, seed, caught, kind, site, text, planted.kinds, planted.site)


SPEC = """\
version: 1
model: {{source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {{depth: 8, in_channels: 1}}}}
input: {{shape: [1, 8, 8]}}
surgery:
  - insert: {{block: se, reduction: 4}}
    at: residual
train: {{data: {{dataset: digits, held_out: 0.1}}, threads: 1, seed: {seed}}}
parity: {{batches: [2]}}
"""


def stale(seed: int) -> Trial:
    """A run gets other weights after its engine was built."""
    from sesurgery import pipeline
    from sesurgery.networks import checkpoint
    from sesurgery.pipeline.build_engine.build_engine import EnginesRequest

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("net.yaml").write_text(SPEC.format(seed=seed))
        workspace = pipeline.Workspace()
        run = pipeline.apply(pipeline.load_spec("net.yaml"), workspace, "net.yaml").folder
        (built,) = pipeline.build_engines(EnginesRequest(run, workspace))
        assert not pipeline.verify(built.path).failures
        read = checkpoint.read(run, pipeline.catalogs())
        with torch.no_grad():
            for parameter in read.network.parameters():
                parameter.mul_(1.01)
        checkpoint.save(run, read.network, read.spec, read.plan, read.manifest.command, read.manifest.details)
        try:
            pipeline.verify(built.path)
        except StaleEngine as error:
            found = pipeline.stale_section(built.path).diagnosis
            kind = None if found is None else found.kind
            return Trial(STALE, seed, True, kind, None, str(error.diagnostics[0]), ("stale",), None)
    return Trial(STALE, seed, False, None, None, "", ("stale",), None)


def main() -> None:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each fault")
    parser.add_argument("--only", default="", help="faults whose name has this in it; the results are not kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    taken, start, trials, honest = provenance(), time.perf_counter(), list[Trial](), list[Trial]()
    for seed in range(chosen.seeds):
        of = victim(seed)
        for fault in (*FAULTS, STALE):
            if chosen.only not in fault:
                continue
            found = stale(seed) if fault == STALE else trial(fault, seed, of)
            trials.append(found)
            print(f"{fault}, seed {seed}: {'caught' if found.caught else 'MISSED'}, {found.text}", flush=True)
            if not found.named or found.located is False:
                print(f"  EXPECTED {found.expected} at {found.place}, found {found.kind} at {found.site}", flush=True)
        if chosen.only in NONE:
            for repeat in range(3):
                honest.append(trial(NONE, 1000 * repeat + seed, of))
                print(
                    f"{NONE}, seed {seed}: {'ACCUSED' if honest[-1].caught else 'passed'} {honest[-1].text}", flush=True
                )
    print(summary(trials, honest))
    if not chosen.only:
        write_text(RESULTS, to_json(results(taken, trials, honest, time.perf_counter() - start)))
        print(f"results -> {RESULTS}")


def summary(trials: Sequence[Trial], honest: Sequence[Trial]) -> str:
    rows = ["| fault | trials | caught | kind named | block named |", "| --- | ---: | ---: | ---: | ---: |"]
    for fault in (*FAULTS, STALE, "all"):
        own = [each for each in trials if fault in (each.fault, "all")]
        if fault == "all":
            own = list(trials)
        if own:
            rows.append(f"| {fault} | {len(own)} | {sum(each.caught for each in own)} | "
                        f"{sum(each.named for each in own)} | {_located(own)} |")  # fmt: skip
    if honest:
        short = [each for each in honest if each.caught]
        kinds = ", ".join(sorted({each.kind or "nothing" for each in short}))
        rows.append(f"| {NONE} | {len(honest)} | {len(short)}{f' (said: {kinds})' if short else ''} | | |")
    return "\n".join(rows)


def _located(trials: Sequence[Trial]) -> str:
    placed = [each.located for each in trials if each.located is not None]
    return f"{sum(placed)} of {len(placed)}" if placed else "-"


def results(
    taken: dict[str, object], trials: Sequence[Trial], honest: Sequence[Trial], seconds: float
) -> dict[str, object]:
    placed = [each.located for each in trials if each.located is not None]
    return {
        **taken,
        "seconds": seconds,
        "trials": len(trials),
        "caught": sum(each.caught for each in trials),
        "kind_named": sum(each.named for each in trials),
        "with_a_place": len(placed),
        "place_named": sum(placed),
        "without_fault": len(honest),
        "accused": sum(each.caught for each in honest),
        "each": [asdict(each) for each in (*trials, *honest)],
    }


if __name__ == "__main__":
    main()
