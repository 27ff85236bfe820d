"""Specs, by their grammar and by their bytes, through `check`; some of those that are good through `plan`."""

import random
from pathlib import Path

import yaml

from sesurgery import pipeline
from sesurgery.spec import load
from tests.fuzz.oracle import BadError, Outcome, called
from tests.fuzz.values import flipped, mutated, nasty

ROOT = Path(__file__).parents[3]
GOOD = {
    "version": 1,
    "name": "net",
    "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20", "kwargs": {"num_classes": 10}},
    "input": {"shape": [3, 32, 32]},
    "surgery": [
        {"insert": {"block": "se", "reduction": 4, "min_width": 8, "init": "identity"}, "at": "residual"},
        {"insert": "eca", "at": {"placement": "module", "names": ["layer1*"]}, "within": "layer*", "every": 2},
        {"remove": "se", "expect": 0},
        {"replace": {"block": "any"}, "insert": {"block": "cbam", "kernel_size": 3}, "stages": [1, 2], "pick": "last"},
    ],
    "train": {
        "data": {"dataset": "digits", "held_out": 0.2},
        "epochs": 1,
        "batch_size": 64,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "warmup_epochs": 1},
        "threads": 1,
        "seed": 1,
    },
    "export": {"opset": 20, "check_batches": [1, 3], "max_abs": 1e-4, "lowering": ["squeeze_hoist"]},
    "engines": [
        {"backend": {"backend": "onnxruntime", "provider": "cpu"}, "precision": "fp16", "batch": {"min": 1, "max": 8}},
        {"backend": "openvino", "shapes": ["input=1,8,32x3x32x32"], "calibration": {"samples": 16}, "name": "second"},
    ],
    "parity": {"fp32": {"max_abs": 0.001}, "batches": [1, 32]},
    "latency": {
        "batch": 1,
        "rounds": 10,
        "placements": 4,
        "half_width": None,
        "repeats": 1,
        "warmup_seconds": 0,
        "confidence": 0.95,
        "threads": 1,
    },
}


def by_grammar(rng: random.Random, folder: Path) -> Outcome:
    data = mutated(GOOD, rng)
    try:
        text = yaml.safe_dump(data, allow_unicode=rng.random() < 0.5, default_flow_style=rng.random() < 0.3)
    except (yaml.YAMLError, RecursionError):
        text = f"surgery: {nasty(rng)!r}"
    if rng.random() < 0.1:
        text = text.replace("version:", f"<<: {rng.choice(('x', '[1]', '{a: 1}', '*a', '[]'))}\nversion:", 1)
    return _judged(text.encode(errors="surrogatepass"), rng, folder)


def by_bytes(rng: random.Random, folder: Path) -> Outcome:
    files = sorted([*(ROOT / "specs").rglob("*.yaml"), *(ROOT / "tests" / "specs" / "bad").glob("*.yaml")])
    return _judged(flipped(rng.choice(files).read_bytes(), rng), rng, folder)


def _judged(text: bytes, rng: random.Random, folder: Path) -> Outcome:
    path = folder / "net.yaml"
    path.write_bytes(text)
    loaded = []
    outcome = called(lambda: loaded.append(pipeline.load_spec(path)), placed=True)
    if not loaded:
        return outcome
    spec = loaded[0]
    # As it lies in a run whose spec came from no file.
    path.write_text(spec.model_copy(update={"name": spec.name}).text())
    if load(path, pipeline.catalogs()).digest != spec.digest:
        raise BadError("what a spec writes out is another spec")
    if "cifar_resnet" in str(spec.model.name) and rng.random() < 0.05:
        return called(pipeline.plan, spec)
    return outcome


TARGETS = {"spec-grammar": by_grammar, "spec-bytes": by_bytes}
