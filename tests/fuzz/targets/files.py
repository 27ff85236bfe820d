"""The verbs on ONNX files that came from no run: `gates FILE --inputs NPZ`, and `verify` and `bench` of one file
against another."""

import importlib
import io
import os
import random
from pathlib import Path

import numpy as np
import onnx

from tests.fuzz.oracle import BadError, Outcome, cli, require_whole, state
from tests.fuzz.targets.onnx_files import any_model, changed
from tests.fuzz.values import flipped

BRIEF = {"rounds": 10, "repeats": 1, "placements": 4, "half_width": None, "warmup_seconds": 0, "threads": 1}
TYPES = ("float32", "float32", "float32", "float64", "int8", "complex64", "bool", "U3", "object")


def gates(rng: random.Random, folder: Path) -> Outcome:
    """A network, odd or damaged, with samples that fit it, that do not, or that are no file of arrays."""
    os.chdir(folder)
    model = any_model(rng)
    samples = _samples(model, rng)
    if rng.random() < 0.5:
        changed(model, rng)
    data = model.SerializeToString()
    Path("net.onnx").write_bytes(flipped(data, rng) if rng.random() < 0.2 else data)
    Path("samples.npz").write_bytes(flipped(samples, rng) if rng.random() < 0.3 else samples)
    return _read_only(("gates", "net.onnx", "--inputs", "samples.npz"))


def against(rng: random.Random, folder: Path) -> Outcome:
    """Two files: one network twice, one of them damaged, or two networks."""
    os.chdir(folder)
    model = any_model(rng)
    other = any_model(rng) if rng.random() < 0.2 else onnx.ModelProto.FromString(model.SerializeToString())
    if rng.random() < 0.6:
        changed(rng.choice((model, other)), rng)
    for name, each in (("net.onnx", model), ("other.onnx", other)):
        data = each.SerializeToString()
        Path(name).write_bytes(flipped(data, rng) if rng.random() < 0.15 else data)
    before = state(Path())
    if rng.random() < 0.3:
        with _brief_races():
            outcome = cli("bench", "net.onnx", "--against", "other.onnx")
    else:
        outcome = cli("verify", "net.onnx", "--against", "other.onnx")
    now = state(Path())
    if any(now.get(name) != digest for name, digest in before.items()):
        raise BadError("a file that was read has changed")
    # What was built of the two stays, and is whole.
    require_whole(Path(), before)
    return outcome


def _read_only(verb: tuple[str, ...]) -> Outcome:
    before = state(Path())
    outcome = cli(*verb)
    if state(Path()) != before:
        raise BadError(f"{verb[0]} wrote files: {sorted(set(state(Path())) ^ set(before))}")
    return outcome


def _samples(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """An .npz with an array for each input, which fits in most cases."""
    arrays = {}
    numbers = np.random.default_rng(rng.getrandbits(32))
    for value in model.graph.input:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        shape = [4 if not axis else size or 8 for axis, size in enumerate(sizes)]
        if rng.random() < 0.2:
            shape = rng.choice(([], [0], [4], shape[:-1], [*shape, 1], [0, *shape[1:]], shape[::-1]))
        array = numbers.normal(size=shape)
        if rng.random() < 0.1:
            array = np.full(shape, rng.choice((np.nan, np.inf, 1e300)))
        arrays[value.name if rng.random() < 0.95 else "nowhere"] = array.astype(rng.choice(TYPES))
    if rng.random() < 0.5:
        labels = rng.choice(([0, 1, 0, 1], [0], [-(2**62)] * 4, [[0]] * 4, [0.5] * 4, 7, ["a"] * 4))
        arrays["labels"] = np.array(labels)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


class _brief_races:  # noqa: N801  (a context manager)
    """Races of few rounds: without a spec the command line cannot ask for fewer."""

    def __enter__(self) -> None:
        self.module = importlib.import_module("sesurgery.pipeline.bench.bench")
        self.race = race = self.module.race
        self.module.race = lambda files, feeds, plan, talk: race(files, feeds, plan.model_copy(update=BRIEF), talk)

    def __exit__(self, *error: object) -> None:
        self.module.race = self.race


TARGETS = {"file-gates": gates, "file-against": against}
