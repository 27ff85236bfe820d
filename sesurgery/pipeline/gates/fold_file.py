"""Which gates of any ONNX file may be folded into constants, and what that costs in answers and brings in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.backends.base import Array
from sesurgery.graph.gates import ChannelGate, names_of
from sesurgery.lowering.base import run
from sesurgery.lowering.passes.constant_gates import ConstantGates, GateRange, gate_ranges
from sesurgery.lowering.preparing import prepared
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.pipeline.build_engine.building import BuildResult
from sesurgery.pipeline.build_engine.halves import Half, halves
from sesurgery.pipeline.build_engine.request import command
from sesurgery.pipeline.gates.of_file import OPTION, gates_in
from sesurgery.pipeline.gates.pair import AS_IT_IS, FOLDED, OWN_BOUND, built, pass_within, raced
from sesurgery.pipeline.lower import LowerRequest
from sesurgery.pipeline.specs import engine
from sesurgery.spec.engines import Engine
from sesurgery.spec.latency import Latency
from sesurgery.talk import Silent, Talk
from sesurgery.temporaries import folder_for
from sesurgery.verification import batches
from sesurgery.verification.file_folding import Answering, FileEngineFold, FileFolding, Flips, GateFold, answering
from sesurgery.verification.file_parity import infer_all
from sesurgery.verification.folding import flipped, predicted, scored


@dataclass(frozen=True)
class FileFoldRequest:
    """Fold the gates of an ONNX file in an engine of it, by half of the samples in a file, and measure on the others.

    `samples` is a .npz file with an array for each input and, if known, `labels` [N].
    """

    file: Path
    samples: Path
    bound: float | None = None
    """How far from a constant a gate may be; left out: the pass's own bound."""
    wanted: Engine = field(default_factory=engine)
    """The engine; its backend's own passes lower it, folded or not."""
    latency: Latency = field(default_factory=Latency)
    """How the two engines race, at the batch that they are tuned for."""
    talk: Talk = field(default_factory=Silent)


def fold_file(request: FileFoldRequest) -> FileFolding:
    """Fold by one half of the samples, on which flips are predicted; then build it, run the others and race it.

    Nothing is kept. Raises SE402 where a file is not there or has no gate, SE606 where there are too few samples or
    they do not fit, and what lowering, building and racing raise.
    """
    model = onnx_io.load(request.file)
    first, second = halves(model, request.samples, OPTION)
    bound = OWN_BOUND if request.bound is None else request.bound
    found = gates_in(request.file, model, first.feeds[0])
    start = prepared(model, verify=True).model
    lowered = run(start, [ConstantGates(bound=bound, samples=first.feeds)], verify=True)
    gates, left = _gates(gate_ranges(start, first.feeds, Dataflow(start)), found, bound)
    measured: FileEngineFold | None = None
    commands: tuple[str, ...] = ()
    if any(gate.folded for gate in gates):
        for note in lowered.notes:
            request.talk.say(note)
        with folder_for("fold") as place:
            folded = Path(place) / request.file.name
            onnx_io.save(lowered.model, folded)
            pair = (
                built(folded, FOLDED, request.wanted, Path(place), request.talk),
                built(request.file, AS_IT_IS, request.wanted, Path(place), request.talk),
            )
            measured = _measured(request, pair, first, second)
        commands = _commands(request, bound)
    return FileFolding(
        bound=bound,
        backend=request.wanted.backend.name,
        precision=request.wanted.precision,
        deciding=len(first),
        held_out=len(second),
        labelled=first.labels is not None,
        gates=gates,
        left=left,
        engine=measured,
        commands=commands,
    )


def _gates(
    ranges: Sequence[GateRange], found: Sequence[ChannelGate], bound: float
) -> tuple[tuple[GateFold, ...], tuple[str, ...]]:
    """What the pass does with each gate, by the names of `found`, and those of them that it does not know."""
    called = names_of(found)
    # Of `u * s + u` the product is a part, and the sum is what the gate is called after.
    owners = {node.name: called[gate.mul.name] for gate in found for node in gate.nodes} | called
    gates = []
    for each in ranges:
        products = [node.output[0] for node, _ in each.scaled]
        key = next((owners[product] for product in products if product in owners), each.name)
        gates.append(GateFold(key, each.within, each.within <= bound))
    known = {gate.key for gate in gates}
    return tuple(gates), tuple(key for key in called.values() if key not in known)


def _commands(request: FileFoldRequest, bound: float) -> tuple[str, ...]:
    """What writes the same folded file, into the current folder, and what builds its engine."""
    target, passes = Path(f"{request.file.stem}.folded.onnx"), (pass_within(bound),)
    backend = request.wanted.backend.name
    lower = LowerRequest(request.file, target, backend, passes, calibration=request.samples, half=True)
    return lower.command, command(target, request.wanted)


def _measured(
    request: FileFoldRequest, pair: tuple[BuildResult, BuildResult], first: Half, second: Half
) -> FileEngineFold:
    after, before = (_Run.of(request.wanted, each, first, second) for each in pair)
    told = answering(before.second, len(second))
    feeds = {name: array[: before.batch] for name, array in second.arrays.items()}
    plan = request.latency.model_copy(update={"batch": before.batch})
    latency, doubt = raced(*pair, feeds, plan, request.talk)
    return FileEngineFold(
        change=numerics.difference(before.second, after.second),
        flips=None if isinstance(told, str) else _flips(told, before, after, second),
        why=told if isinstance(told, str) else None,
        latency=latency,
        doubt=doubt,
        batch=plan.batch,
    )


@dataclass(frozen=True)
class _Run:
    """The outputs of an engine over both halves, and the batch that it is tuned for."""

    first: dict[str, Array]
    second: dict[str, Array]
    batch: int

    @classmethod
    def of(cls, wanted: Engine, built: BuildResult, first: Half, second: Half) -> _Run:
        with wanted.backend.options.load(built.path) as runner:
            sample = next(iter(first.arrays.values())).shape[1:]
            batch = batches.limits(built.manifest.details.engine, runner, sample).optimal
            return cls(infer_all(runner, first.arrays, batch), infer_all(runner, second.arrays, batch), batch)


def _flips(told: Answering, before: _Run, after: _Run, second: Half) -> Flips:
    was, now = (told.answers(each.second) for each in (before, after))
    labels = None if told.sequence else second.labels
    return Flips(
        answering=told,
        predicted=predicted(told.answers(before.first), told.answers(after.first), len(second)),
        measured=flipped(was, now),
        scored=None if labels is None else scored(was, now, labels),
    )
