"""A finished workspace (run, ONNX file, engine, measurements) of which one file was written into, through the verbs.

Where a digest would tell at once, it is put right in half of the cases: a stranger can do that too. `plan.json` and the
spec inside a run are changed without that; with it they name code, which is another matter than their form.
"""

import contextlib
import csv
import functools
import hashlib
import io
import json
import os
import random
import shutil
from pathlib import Path

from sesurgery import pipeline
from sesurgery.workspace.folders import Workspace
from tests.fuzz.oracle import Outcome, called, cli, require_whole, state
from tests.fuzz.values import flipped, mutated, nasty

SPEC = """version: 1
name: net
model: {source: python, name: "sesurgery.networks.cifar_resnet:resnet20"}
input: {shape: [3, 16, 16]}
surgery: [{insert: {block: se, reduction: 4, min_width: 8}, at: residual, stages: [3]}]
train: {epochs: 1, batch_size: 256, threads: 1}
export: {check_batches: [1]}
engines: [{backend: onnxruntime}]
parity: {batches: [16]}
latency: {rounds: 10, placements: 4, half_width: null, repeats: 1, warmup_seconds: 0, threads: 1}
"""
RUN, ENGINE = "runs/{name}", "engines/{name}.onnxruntime.fp32.onnx"
FORMS = {
    "manifest": (
        f"{ENGINE}.manifest.json",
        f"{RUN}/weights.safetensors.manifest.json",
        "export/{name}.onnx.manifest.json",
    ),
    "measurement": tuple(f"{RUN}/reports/{{name}}.onnxruntime.fp32.onnx.{kind}.json" for kind in ("parity", "latency")),
    "interface": (f"{RUN}/interface.json",),
    "metrics": (f"{RUN}/train/metrics.csv",),
    "run-folder": (f"{RUN}/plan.json", f"{RUN}/spec.yaml", f"{RUN}/weights.safetensors", ENGINE, "export/{name}.onnx"),
}
"""The files of each target; `{name}` is that of the workspace's one spec."""


def named(place: str, folder: Path) -> str:
    """A place in a workspace, by the name of its one spec."""
    return place.format(name=next(folder.glob("*.yaml")).stem)


def prepare(folder: Path) -> None:
    """Make the workspace, once."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.yaml").write_text(SPEC)
    with contextlib.chdir(folder):
        _called(("run", "net.yaml"))
        complete()


def complete() -> None:
    """What verbs need beside a run with its engine and its measurements, in the current folder."""
    from PIL import Image

    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save("image.png")
    # What is refused untouched would be refused whatever is changed.
    for verb in _verbs("run-folder"):
        done = _called(verb)
        if done.kind != "done" and verb[0] != "verify":
            raise RuntimeError(f"{verb} is refused in a workspace that nobody touched: {done.text}")
    shutil.rmtree("s", ignore_errors=True)


def target(form: str):
    def changed(rng: random.Random, folder: Path) -> Outcome:
        shutil.copytree(Path(os.environ["SESURGERY_FUZZ_WORKSPACE"]), folder / "w")
        os.chdir(folder / "w")
        path = Path(named(rng.choice(FORMS[form]), Path()))
        path.write_bytes(_changed(path, rng))
        if path.suffix in (".safetensors", ".onnx") and rng.random() < 0.5:
            _redigest(path)
        before = state(Path())
        outcome = _called(rng.choice(_verbs(form)))
        require_whole(Path(), before)
        return outcome

    return changed


def _called(verb: tuple[str, ...]) -> Outcome:
    if verb[0] == "report":
        return called(pipeline.write_report, Path(verb[1]), Workspace())
    return cli(*verb)


def _verbs(form: str) -> tuple[tuple[str, ...], ...]:
    run, engine = named(RUN, Path()), named(ENGINE, Path())
    predict = ("predict", engine, "image.png")
    if form in ("measurement", "metrics"):
        return (("report", run),)
    if form == "interface":
        return (predict, ("package", engine, "--triton", "served"))
    return (predict, ("report", run), ("evaluate", run), ("verify", engine), ("package", engine, "--triton", "s"),
            ("export", run), ("build-engine", run))  # fmt: skip


def _changed(path: Path, rng: random.Random) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        return json.dumps(mutated(json.loads(data), rng)).encode()
    if path.suffix == ".csv" and rng.random() < 0.7:
        rows = mutated(list(csv.reader(io.StringIO(data.decode()))), rng)
        stream = io.StringIO()
        csv.writer(stream).writerows(row if isinstance(row, list) else [nasty(rng)] for row in _list(rows))
        return stream.getvalue().encode(errors="surrogatepass")
    return flipped(data, rng)


def _list(rows: object) -> list:
    return rows if isinstance(rows, list) else [rows]


def _redigest(path: Path) -> None:
    manifest = path.with_name(path.name + ".manifest.json")
    told = json.loads(manifest.read_text())
    told["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(told))


@functools.cache
def _trained():
    """The spec and the network that the checkpoint fits; what a case loads into it, the next one replaces."""
    from sesurgery import apply, load_spec

    workspace = Path(os.environ["SESURGERY_FUZZ_WORKSPACE"])
    spec = load_spec(workspace / named("{name}.yaml", workspace))
    return spec, apply(spec)


def checkpoint(rng: random.Random, folder: Path) -> Outcome:
    """A training checkpoint and a weights file."""
    import torch

    from sesurgery.networks import weights
    from sesurgery.training import checkpoint as training
    from tests.fuzz.oracle import called

    workspace = Path(os.environ["SESURGERY_FUZZ_WORKSPACE"])
    source = workspace / named(RUN, workspace) / "train" / "last.ckpt"
    path = folder / "last.ckpt"
    if rng.random() < 0.5:
        path.write_bytes(flipped(source.read_bytes(), rng))
    else:
        content = torch.load(source, weights_only=True)
        key = rng.choice(("sesurgery", "sesurgery", "state_dict"))
        if key == "state_dict":
            content[key][rng.choice(list(content[key]))] = rng.choice((nasty(rng), torch.zeros(3)))
        else:
            content[key] = mutated(content[key], rng)
        torch.save(content, path)
    spec, network = _trained()

    def used() -> None:
        saved = training.read(path)
        training.require_fit(saved, network, spec.train, path)

    return rng.choice((lambda: called(used), lambda: called(weights.load_weights, network, path)))()


TARGETS = {**{form: target(form) for form in FORMS}, "checkpoint": checkpoint}
