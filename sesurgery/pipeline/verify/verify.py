"""The verb `verify`: an engine against the trained model on held-out data and on probes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import Diagnostic, fail
from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.pipeline.specs import backend_of, catalogs
from sesurgery.reports import results
from sesurgery.reports.model import EngineSection
from sesurgery.serving.loadable import require_loadable
from sesurgery.spec.parity import Tolerance
from sesurgery.talk import Silent, Talk
from sesurgery.training.data import data_of
from sesurgery.training.data.base import Data
from sesurgery.training.evaluation import logits, split_logits
from sesurgery.verification import batches, diagnosis
from sesurgery.verification.drift import Repair
from sesurgery.verification.flips import FlippedSample, flipped_samples
from sesurgery.verification.parity import PARITY, BatchParity, EngineParity, ParityReport, compare
from sesurgery.verification.predicting import predict, predict_whole
from sesurgery.verification.probes import ProbeParity, compare_probe, probes
from sesurgery.workspace import EngineManifest, freshness, read_manifest, require_intact, run_files, run_folder
from sesurgery.workspace.measurements import Of, forget_reason


@dataclass(frozen=True)
class VerifyResult:
    """An engine with its parity at each batch size, on probes, and what is wrong with it where it falls short."""

    engine: Path
    run: Path
    section: EngineSection

    @property
    def failures(self) -> tuple[Diagnostic, ...]:
        """Every criterion that was not met, with batch size, what was asked and what was found."""
        found = self.section.diagnosis
        hint = "see the samples it names in the report, or state another tolerance under 'parity:' knowingly"
        if found is not None:
            hint = f"{found}; {found.remedy}"
        broken = [
            Diagnostic("SE701", f"{self.engine.name} at batch {entry.batch}: {failure}", hint=hint)
            for entry in self.section.parity
            for failure in entry.report.failures
        ]
        broken += [
            Diagnostic("SE701", f"{self.engine.name} at batch {probe.batch}: {probe.failure}", hint=hint)
            for probe in self.section.probes
            if probe.failure is not None
        ]
        hint = "name batches under 'parity: batches' that the engine takes and that there are samples for"
        return *broken, *(
            Diagnostic("SE701", f"{self.engine.name} was not verified at {why}", hint=hint)
            for why in self.section.unverified
        )


def run_of(engine: Path, *, foreign: bool = False) -> tuple[EngineManifest, Path]:
    """An intact engine's manifest and the folder of the run it came from; raises SE402 if there is none.

    Raises SE603 for an engine that another version or device has built, unless `foreign` ones are taken.
    """
    manifest = require_loadable(engine, foreign=foreign)
    folder = run_folder(engine, manifest)
    if folder is None:
        text = f"{engine} was built from an ONNX file that came from no run: there is no trained model to compare with"
        hint = "build the engine from a run; with the file alone it is compared by `sesurgery verify ENGINE`"
        raise fail("SE402", text, hint)
    return manifest, folder


def verify(engine: Path, *, foreign: bool = False, drift: bool = False, talk: Talk | None = None) -> VerifyResult:
    """Compare an engine with its run's trained model on every held-out sample; the result is kept beside the run.

    One that falls short is searched for the fault. With `drift` the error along the network is measured too, and
    repairs are tried on one that falls short. Raises SE603 if the engine cannot run here and StaleEngine (SE401) if the
    run was trained again after the engine was built.
    """

    manifest, folder = run_of(engine, foreign=foreign)
    run = checkpoint.read(folder, catalogs())
    freshness.require_current(engine, manifest, folder, run.manifest.sha256)
    subject = _Subject(run, engine, manifest, data_of(run.spec))
    with backend_of(manifest).load(engine) as runner:
        compared = _measured(runner, subject)
    found = compared.parity
    if compared.parity.entries and (drift or not found.passed):
        found = _searched(subject, compared, drift, talk or Silent())
    PARITY.write(folder, engine.name, found)
    forget_reason(folder, engine)
    return VerifyResult(engine, folder, results.engine_section(folder, engine, manifest, run.manifest.sha256))


def stale_section(engine: Path) -> EngineSection:
    """The report's section of an engine that `verify` refused as stale: not verified, with `stale` as its diagnosis."""
    manifest = read_manifest(engine, EngineManifest)
    folder = run_folder(engine, manifest)
    assert folder is not None  # of no run, it cannot be of other weights than its run has
    return results.engine_section(folder, engine, manifest, require_intact(folder / run_files.WEIGHTS).sha256)


@dataclass(frozen=True)
class _Subject:
    """An engine, its run and the data that it is compared on."""

    run: Run
    engine: Path
    manifest: EngineManifest
    data: Data

    @property
    def tolerance(self) -> Tolerance:
        tolerance: Tolerance = getattr(self.run.spec.parity, self.manifest.details.precision)
        return tolerance


@dataclass(frozen=True)
class _Comparison:
    """The model's logits, the engine's by batch size, and how they compare."""

    reference: Array
    given: dict[int, Array]
    parity: EngineParity


def _measured(runner: Runner, subject: _Subject) -> _Comparison:
    run, data = subject.run, subject.data
    held_out = data.held_out
    reference = split_logits(run.network, held_out).numpy()
    images, labels = held_out.images, held_out.labels.numpy()
    limits = batches.limits(subject.manifest.details.engine, runner, run.spec.input.shape)
    entries: list[BatchParity] = []
    left: list[str] = []
    given: dict[int, Array] = {}
    parity = run.spec.parity
    for batch in batches.chosen(parity.batches, "batches" in parity.model_fields_set, limits, len(images)):
        if (why := batches.impossible(batch, limits, len(images))) is not None:
            left.append(f"batch {batch}: {why}")
            continue
        given[batch] = predict_whole(runner, images, limits, batch)
        entries.append(BatchParity(batch, _of_answered(reference, given[batch], labels, subject.tolerance)))
    found = EngineParity(
        of=Of(subject.manifest.sha256, run.manifest.sha256),
        entries=tuple(entries),
        unverified=tuple(left),
        probes=_probed(runner, run, data, entries[0].batch, subject.tolerance) if entries else (),
        flipped=_flipped(data, reference, given, entries),
    )
    return _Comparison(reference, given, found)


def _of_answered(reference: Array, given: Array, labels: Array, tolerance: Tolerance) -> ParityReport:
    """On the samples that were answered: an engine may take no rest."""
    return compare(reference[: len(given)], given, labels[: len(given)], tolerance)


def _model(run: Run) -> Callable[[Array], Array]:
    """The trained network on arrays."""
    import torch

    return lambda images: logits(run.network, [torch.from_numpy(np.ascontiguousarray(images, np.float32))]).numpy()


def _probed(runner: Runner, run: Run, data: Data, batch: int, tolerance: Tolerance) -> tuple[ProbeParity, ...]:
    images = np.asarray(data.held_out.images[: diagnosis.SAMPLES], np.float32)
    model = _model(run)
    found = (
        compare_probe(name, model(made), predict(runner, made, batch), batch, tolerance.max_relative)
        for name, made in probes(images, batches.whole(diagnosis.SAMPLES // 8, batch))
    )
    return tuple(probe for probe in found if probe is not None)


def _flipped(
    data: Data, reference: Array, given: dict[int, Array], entries: list[BatchParity]
) -> tuple[FlippedSample, ...]:
    """Flipped samples at the batch size where most answers changed."""
    if not entries:
        return ()
    worst = max(entries, key=lambda entry: len(entry.report.disagreeing))
    held_out = data.held_out
    flips = worst.report.disagreeing
    labels = held_out.labels.numpy()
    return tuple(flipped_samples(held_out.images, reference, given[worst.batch], labels, data.classes, flips))


def _searched(subject: _Subject, compared: _Comparison, drift: bool, talk: Talk) -> EngineParity:
    """What is wrong with an engine that falls short, how its error grows where that was asked, and what repairs it."""
    # They import onnx and the exporter, which an engine that passes has no use for.
    from sesurgery.pipeline.verify.repairs import Broken, repairs
    from sesurgery.pipeline.verify.tracing import trace
    from sesurgery.verification import chain, engine_drift

    found, run = compared.parity, subject.run
    which = _telling(found.entries)
    images = np.asarray(subject.data.held_out.images[which], np.float32)
    looked_at = images[: chain.SAMPLES]
    talk.say(f"looking for where {subject.engine.name} leaves the model")
    traced = trace(run, subject.engine, subject.manifest)
    single = [looked_at[index : index + 1] for index in range(len(looked_at))]
    smallest = found.entries[0].batch
    # An engine may take no smaller batch, and there may be fewer samples to look at.
    batched = [np.resize(looked_at, (smallest, *looked_at.shape[1:]))] if smallest > 1 else single
    measured = functools.cache(lambda: engine_drift.drift(traced.suspect, batched))
    diagnosed = None
    if not found.passed:
        passed = {entry.batch: entry.report.passed for entry in found.entries}
        few = {batch: answers[which] for batch, answers in compared.given.items()}
        told = diagnosis.of_answers(_model(run), images, compared.reference[which], few, passed)
        diagnosed = chain.diagnose(traced.links, told, looked_at, measured)
    if not drift:
        return replace(found, diagnosis=diagnosed)
    tried: tuple[Repair, ...] = ()
    if diagnosed is not None:
        broken = Broken(run, subject.engine, subject.manifest, diagnosed, traced.links.modules)
        tried = repairs(broken, functools.partial(_shortfall, subject, compared), talk)
    return replace(found, diagnosis=diagnosed, drift=measured(), repairs=tried)


def _shortfall(subject: _Subject, compared: _Comparison, runner: Runner) -> str | None:
    """What an engine that was built otherwise falls short of, at the batch sizes of the one in question."""
    held_out = subject.data.held_out
    labels = held_out.labels.numpy()
    limits = batches.limits(subject.manifest.details.engine, runner, subject.run.spec.input.shape)
    for batch in compared.given:
        given = predict_whole(runner, held_out.images, limits, batch)
        report = _of_answered(compared.reference, given, labels, subject.tolerance)
        if report.failures:
            return f"batch {batch}: {report.failures[0]}"
    return None


def _telling(entries: Sequence[BatchParity]) -> list[int]:
    """Positions of samples to look at: those with the largest errors, then the first."""
    count = min(entry.report.samples for entry in entries)
    errors = np.array([entry.report.sample_errors[:count] for entry in entries]).max(0)
    worst: list[int] = np.argsort(-errors, kind="stable")[: diagnosis.SAMPLES // 4].tolist()
    others = [index for index in range(len(errors)) if index not in set(worst)]
    return worst + others[: diagnosis.SAMPLES - len(worst)]
