"""The verb `verify`: an engine against the trained model on held-out data and on probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import Diagnostic, fail
from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.pipeline import results
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.specs import backend_of, catalogs
from sesurgery.reports.model import EngineSection
from sesurgery.serving.loadable import require_loadable
from sesurgery.spec.parity import Tolerance
from sesurgery.training.data.base import Data
from sesurgery.training.evaluation import logits, split_logits
from sesurgery.verification import batches, diagnosis
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.flips import FlippedSample, flipped_samples
from sesurgery.verification.parity import PARITY, BatchParity, EngineParity, compare, predict
from sesurgery.verification.probes import ProbeParity, compare_probe, probes
from sesurgery.workspace import EngineManifest, freshness, run_folder
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
    """An intact engine's manifest and the folder of the run it came from; raises SE402 where there is none.

    Raises SE603 for an engine that another version or device has built, unless `foreign` ones are taken.
    """
    manifest = require_loadable(engine, foreign=foreign)
    folder = run_folder(engine, manifest)
    if folder is None:
        text = f"{engine} was built from an ONNX file that came from no run: there is no trained model to compare with"
        raise fail("SE402", text, "export the file from a run, or build the engine from the run")
    return manifest, folder


def verify(engine: Path, *, foreign: bool = False) -> VerifyResult:
    """Compare an engine with its run's trained model on every held-out sample; the result is kept beside the run.

    Raises SE603 where the engine cannot run here and SE401 where the run was trained again after the engine was built.
    """

    manifest, folder = run_of(engine, foreign=foreign)
    run = checkpoint.read(folder, catalogs())
    freshness.require_current(engine, manifest, folder, run.manifest.sha256)
    with backend_of(manifest).load(engine) as runner:
        found = _measured(runner, run, manifest)
    PARITY.write(folder, engine.name, found)
    forget_reason(folder, engine)
    return VerifyResult(engine, folder, results.engine_section(folder, engine, manifest, run.manifest.sha256))


def _measured(runner: Runner, run: Run, manifest: EngineManifest) -> EngineParity:
    data = data_of(run.spec)
    held_out = data.held_out
    reference = split_logits(run.network, held_out).numpy()
    images, labels = held_out.images, held_out.labels.numpy()
    tolerance: Tolerance = getattr(run.spec.parity, manifest.details.precision)
    limits = batches.limits(manifest.details.engine, runner)
    entries: list[BatchParity] = []
    left: list[str] = []
    given: dict[int, Array] = {}
    parity = run.spec.parity
    for batch in batches.chosen(parity.batches, "batches" in parity.model_fields_set, limits, len(images)):
        if (why := batches.impossible(batch, limits, len(images))) is not None:
            left.append(f"batch {batch}: {why}")
            continue
        given[batch] = predict(runner, images, batch)
        entries.append(BatchParity(batch, compare(reference, given[batch], labels, tolerance)))
    found = EngineParity(
        of=Of(manifest.sha256, run.manifest.sha256),
        entries=tuple(entries),
        unverified=tuple(left),
        probes=_probed(runner, run, data, entries[0].batch, tolerance) if entries else (),
        flipped=_flipped(data, reference, given, entries),
    )
    return found if found.passed else replace(found, diagnosis=_diagnosis(run, data, reference, given, entries))


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
    """Of the batch size at which most answers changed."""
    if not entries:
        return ()
    worst = max(entries, key=lambda entry: len(entry.report.disagreeing))
    held_out = data.held_out
    flips = worst.report.disagreeing
    labels = held_out.labels.numpy()
    return tuple(flipped_samples(held_out.images, reference, given[worst.batch], labels, data.classes, flips))


def _diagnosis(
    run: Run, data: Data, reference: Array, given: dict[int, Array], entries: list[BatchParity]
) -> Diagnosis | None:
    if not entries:
        return None
    which = _telling(entries)
    images = np.asarray(data.held_out.images[which], np.float32)
    passed = {entry.batch: entry.report.passed for entry in entries}
    few = {batch: answers[which] for batch, answers in given.items()}
    return diagnosis.of_answers(_model(run), images, reference[which], few, passed)


def _telling(entries: list[BatchParity]) -> list[int]:
    """Positions of samples to look at: those with the largest errors, and the first."""
    errors = np.array([entry.report.sample_errors for entry in entries]).max(0)
    worst = np.argsort(-errors, kind="stable")[: diagnosis.SAMPLES // 4].tolist()
    others = [index for index in range(len(errors)) if index not in set(worst)]
    return sorted(worst + others[: diagnosis.SAMPLES - len(worst)])
