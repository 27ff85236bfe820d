"""The verb `verify`: an engine against the trained model on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.backends.base import Runner
from sesurgery.diagnostics import Diagnostic, fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline import results
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.specs import backend_of, catalogs
from sesurgery.reports.model import EngineSection
from sesurgery.serving.home import require_at_home
from sesurgery.spec.parity import Parity
from sesurgery.training.evaluation import BATCH, logits
from sesurgery.verification.parity import PARITY, BatchParity, EngineParity, compare, predict
from sesurgery.workspace import EngineManifest, freshness, run_folder
from sesurgery.workspace.measurements import Of, forget_reason


@dataclass(frozen=True)
class VerifyResult:
    """An engine with its parity at each batch size of the spec."""

    engine: Path
    run: Path
    section: EngineSection

    @property
    def failures(self) -> tuple[Diagnostic, ...]:
        """Every criterion that was not met, with batch size, what was asked and what was found."""
        hint = "see the samples it names in the report, or state another tolerance under 'parity:' knowingly"
        broken = [
            Diagnostic("SE701", f"{self.engine.name} at batch {entry.batch}: {failure}", hint=hint)
            for entry in self.section.parity
            for failure in entry.report.failures
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
    manifest = require_at_home(engine, foreign=foreign)
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
    held_out = data_of(run.spec).held_out
    reference = logits(run.network, (images for images, _ in held_out.batches(BATCH))).numpy()
    images, labels = held_out.images, held_out.labels.numpy()
    tolerance = getattr(run.spec.parity, manifest.details.precision)
    entries, left = [], []
    with backend_of(manifest).load(engine) as runner:
        for batch in _batches(run.spec.parity, manifest, len(images), runner):
            if (why := _impossible(batch, manifest, len(images))) is not None:
                left.append(f"batch {batch}: {why}")
                continue
            entries.append(BatchParity(batch, compare(reference, predict(runner, images, batch), labels, tolerance)))
    found = EngineParity(Of(manifest.sha256, run.manifest.sha256), tuple(entries), tuple(left))
    PARITY.write(folder, engine.name, found)
    forget_reason(folder, engine)
    return VerifyResult(engine, folder, results.engine_section(folder, engine, manifest, run.manifest.sha256))


def _batches(parity: Parity, manifest: EngineManifest, samples: int, runner: Runner) -> tuple[int, ...]:
    """The sizes that the spec names; of an engine whose batch is fixed, that one.

    Sizes that nobody named are brought within what the engine takes and what there are samples for.
    """
    size = runner.inputs[0].shape[0] if runner.inputs and runner.inputs[0].shape else None
    if isinstance(size, int):
        return (size,)
    if "batches" in parity.model_fields_set:
        return parity.batches
    smallest, largest = _range(manifest) or (1, samples)
    return tuple(dict.fromkeys(min(max(batch, smallest), largest, samples) for batch in parity.batches))


def _impossible(batch: int, manifest: EngineManifest, samples: int) -> str | None:
    """Why an engine cannot be compared at a batch size, or None: smaller batches would show nothing of it."""
    sizes = _range(manifest)
    if sizes and not sizes[0] <= batch <= sizes[1]:
        return f"the engine was built for batches from {sizes[0]} to {sizes[1]}"
    return f"there are {samples} held-out samples" if batch > samples else None


def _range(manifest: EngineManifest) -> tuple[int, int] | None:
    """The smallest and the largest batch that an engine was built for; None where its profiles say."""
    asked = manifest.details.engine
    return None if asked.shapes else (asked.batch.min, asked.batch.max)
