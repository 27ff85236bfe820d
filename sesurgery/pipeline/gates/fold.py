"""Which blocks of a run may be folded into constants, and what that costs in answers and brings in time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sesurgery.backends.base import Backend, BuildsFromOnnx
from sesurgery.lowering import in_order
from sesurgery.networks import checkpoint
from sesurgery.networks.export import INPUT
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.scopes import scope_of
from sesurgery.pipeline.bench.prices import run_subject
from sesurgery.pipeline.bench.pricing import prices
from sesurgery.pipeline.build_engine.building import BuildResult
from sesurgery.pipeline.build_engine.lowered import passes_for
from sesurgery.pipeline.gates.constants import Constants, constants
from sesurgery.pipeline.gates.pair import AS_IT_IS, FOLDED, OWN_BOUND, PASS, built, pass_within, raced
from sesurgery.pipeline.specs import catalogs, engine
from sesurgery.spec import Spec
from sesurgery.spec.engines import Engine
from sesurgery.spec.passes import pass_named
from sesurgery.talk import Silent, Talk
from sesurgery.temporaries import folder_for
from sesurgery.verification import batches
from sesurgery.verification.cost import Prices
from sesurgery.verification.folding import (
    FOLDING,
    SUBJECT,
    Answers,
    BlockFold,
    EngineFold,
    Folding,
    flipped,
    predicted_time,
    scored,
)
from sesurgery.verification.predicting import predict_whole
from sesurgery.workspace import OnnxManifest, manifest_path, read_manifest
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.measurements import OfWeights


@dataclass(frozen=True)
class FoldRequest:
    """Fold a run's blocks in the first engine of its spec that can be built and run here, or in one of ONNX Runtime."""

    folder: Path
    workspace: Workspace
    bound: float | None = None
    """How far from a constant a gate may be; left out: as the run's spec says, or the pass's own bound."""
    price: bool = False
    """Whether to measure what each block costs, which takes minutes, and predict by it what folding saves in time."""
    talk: Talk = field(default_factory=Silent)


@dataclass(frozen=True)
class FoldResult:
    """What folding does to a run; it is kept beside the run, and its report shows it."""

    folder: Path
    folding: Folding


def fold(request: FoldRequest) -> FoldResult:
    """Predict on training samples what folding does, and by prices what it saves; then build it, score it and race it.

    The pass `constant_gates` folds, by its own samples. Raises SE402 if the run has no block, and what
    exporting, building and racing raise.
    """
    spec = checkpoint.read_spec(request.folder, catalogs())
    wanted = _engine(spec)
    found = constants(request.folder, request.workspace, wanted.calibration)
    passes = [pass_named(text) for text in passes_for(wanted.backend.options, wanted, spec.export.lowering)]
    said = next((each.options["bound"] for each in passes if each.name == PASS and "bound" in each.options), OWN_BOUND)
    bound = said if request.bound is None else request.bound
    others = tuple(str(each) for each in passes if each.name != PASS)
    lowering = in_order((pass_within(bound), *others))
    folded: tuple[str, ...] = ()
    priced: Prices | None = None
    measured: EngineFold | None = None
    if any(within <= bound for within in found.within.values()):
        with folder_for("fold") as place:
            pair = _Pair(request, found, wanted, Path(place))
            engines = pair.built(FOLDED, lowering), pair.built(AS_IT_IS, others)
            folded, elsewhere = pair.folded(engines[0])
            priced = pair.priced(others) if folded and request.price else None
            measured = pair.measured(engines, folded, elsewhere, priced) if folded else None
    held_out = found.network.answers(found.held_out) if folded else None
    blocks = tuple(
        BlockFold(
            key=key,
            within=within,
            folded=key in folded,
            predicted=found.prediction([key]),
            measured=None
            if held_out is None or key not in folded
            else flipped(held_out, found.network.answers(found.held_out, [key])),
            time=None if priced is None else predicted_time(priced, [key], spec.latency.confidence),
        )
        for key, within in found.within.items()
    )
    folding = Folding(
        of=OfWeights(found.run.manifest.sha256),
        bound=bound,
        backend=wanted.backend.name,
        precision=wanted.precision,
        deciding=found.deciding,
        counted=len(found.training),
        apart=found.apart,
        blocks=blocks,
        engine=measured,
        lowering=lowering,
        batch=batches.timed(spec.latency, wanted).batch,
        left=found.left,
        prices=priced,
    )
    FOLDING.write(request.folder, SUBJECT, folding)
    return FoldResult(request.folder, folding)


def _engine(spec: Spec) -> Engine:
    """The first engine of a spec that is built from an ONNX file and runs here, or one of ONNX Runtime."""
    for wanted in spec.engines:
        backend = wanted.backend.options
        if isinstance(backend, Backend) and isinstance(backend, BuildsFromOnnx):
            ability = backend.probe()
            if ability.builds is None and ability.runs is None:
                return wanted
    return engine()


@dataclass(frozen=True)
class _Pair:
    """The engine of a run with the pass and without, in a folder that goes again."""

    request: FoldRequest
    found: Constants
    wanted: Engine
    folder: Path

    def built(self, name: str, lowering: tuple[str, ...]) -> BuildResult:
        return built(self.found.exported, name, self.wanted, self.folder, self.request.talk, lowering)

    def folded(self, built: BuildResult) -> tuple[tuple[str, ...], int]:
        """The blocks whose gates the pass has folded, and how many other gates it has."""
        made = [path for path in built.manifest.parent_files(built.path) if manifest_path(path).is_file()]
        details = [read_manifest(path, OnnxManifest).details for path in made]
        nodes = [reason.where for each in details for reason in each.lowered if reason.kind == PASS]
        scopes = {node.name: scope_of(node) or "" for node in onnx_io.load(self.found.exported).graph.node}
        modules = self.found.network.modules
        owners = [
            next((key for key, module in modules.items() if f"{scopes.get(node, '')}.".startswith(f"{module}.")), None)
            for node in nodes
        ]
        keys = tuple(key for key in modules if key in owners)
        return keys, sum(owner is None for owner in owners)

    def priced(self, lowering: tuple[str, ...]) -> Prices:
        """What each block costs the engine as it is; intervals hold as surely as those of the race."""
        subject = run_subject(self.found.run, self.wanted, lowering, talk=self.request.talk)
        asked = self.found.run.spec.latency.confidence
        return prices(replace(subject, latency=subject.latency.model_copy(update={"confidence": asked})))

    def measured(
        self,
        engines: tuple[BuildResult, BuildResult],
        keys: tuple[str, ...],
        others: int,
        priced: Prices | None,
    ) -> EngineFold:
        held_out, latency = self.found.data.held_out, batches.timed(self.found.run.spec.latency, self.wanted)
        after, before = (self._answers(built) for built in engines)
        score = scored(before, after, held_out.labels[: len(before)].numpy())
        feeds = {INPUT: held_out.images[: latency.batch].numpy()}
        time, doubt = raced(*engines, feeds, latency, self.request.talk)
        return EngineFold(
            blocks=keys,
            others=others,
            predicted=self.found.prediction(keys),
            measured=score.flips,
            top1=score.top1,
            difference=score.difference,
            mcnemar=score.mcnemar,
            latency=time,
            doubt=doubt,
            time=None if priced is None else predicted_time(priced, keys, latency.confidence),
        )

    def _answers(self, built: BuildResult) -> Answers:
        """The engine's answers to the held-out samples, but for a rest that makes no batch."""
        images = self.found.data.held_out.images
        with self.wanted.backend.options.load(built.path) as runner:
            limits = batches.limits(built.manifest.details.engine, runner, self.found.run.spec.input.shape)
            answers: Answers = np.argmax(predict_whole(runner, images, limits), axis=1)
        return answers
