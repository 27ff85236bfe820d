"""The verb `verify`: an engine against the trained model on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import Manifest, require_intact, write_text
from sesurgery.backends.base import Runner
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline import results
from sesurgery.pipeline.specs import backend_of, catalogs
from sesurgery.pipeline.train import data_of
from sesurgery.reports.model import BatchParity, EngineSection
from sesurgery.serving.home import require_at_home, run_folder
from sesurgery.training.evaluation import logits
from sesurgery.verification.parity import compare, predict


@dataclass(frozen=True)
class Verified:
    """An engine with its parity at each batch size of the spec."""

    engine: Path
    run: Path
    section: EngineSection

    @property
    def failures(self) -> tuple[Diagnostic, ...]:
        """Every criterion that was not met, with batch size, what was asked and what was found."""
        hint = "see the samples it names in the report, or state another tolerance under 'parity:' knowingly"
        return tuple(
            Diagnostic("SE701", f"{self.engine.name} at batch {entry.batch}: {failure}", hint=hint)
            for entry in self.section.parity
            for failure in entry.report.failures
        )


def run_of(engine: Path, *, foreign: bool = False) -> tuple[Manifest, Path]:
    """An intact engine's manifest and the folder of the run it came from; raises SE402 where there is none.

    Raises SE603 for an engine that another version or device has built, unless `foreign` ones are taken.
    """
    manifest = require_at_home(engine, foreign=foreign)
    folder = run_folder(engine, manifest)
    if folder is None:
        text = f"{engine} was built from an ONNX file that came from no run: there is no trained model to compare with"
        raise fail("SE402", text, "export the file from a run, or build the engine from the run")
    return manifest, folder


def verify(engine: Path, *, foreign: bool = False) -> Verified:
    """Compare an engine with its run's trained model on every held-out sample; the result is kept beside the run.

    Raises SE603 where the engine cannot run here and SE401 where the run was trained again after the engine was built.
    """
    manifest, folder = run_of(engine, foreign=foreign)
    run = checkpoint.read(folder, catalogs())
    if not descends_from(manifest, run.manifest.sha256):
        text = f"{engine} was not built from the weights that {folder} holds now"
        raise fail("SE401", text, f"build it again: `sesurgery build-engine {folder.as_posix()}`")
    held_out = data_of(run.spec).held_out
    reference = logits(run.network, held_out.images).numpy()
    images, labels = held_out.images.numpy(), held_out.labels.numpy()
    tolerance = getattr(run.spec.parity, str(manifest.details["precision"]))
    entries = []
    with backend_of(manifest).load(engine) as runner:
        for batch in _batches(run.spec.parity.batches, runner):
            entries.append(BatchParity(batch, compare(reference, predict(runner, images, batch), labels, tolerance)))
    write_text(results.parity_file(folder, engine), results.dump(results.PARITY, tuple(entries)))
    results.reason_file(folder, engine).unlink(missing_ok=True)
    return Verified(engine, folder, results.engine_section(folder, engine, manifest))


def _batches(asked: tuple[int, ...], runner: Runner) -> tuple[int, ...]:
    """The sizes of the spec; of an engine whose batch is fixed, that one."""
    size = runner.inputs[0].shape[0] if runner.inputs and runner.inputs[0].shape else None
    return (size,) if isinstance(size, int) else asked


def descends_from(manifest: Manifest, weights: str) -> bool:
    """Whether the chain of digests from an engine back to the weights holds: engine <- ONNX <- (ONNX <-) weights."""
    parents = {parent.path: parent.sha256 for parent in manifest.parents}
    seen: set[str] = set()
    while parents:
        path, digest = parents.popitem()
        if digest == weights:
            return True
        if path in seen or not Path(path).is_file():
            continue
        seen.add(path)
        try:
            made = require_intact(Path(path))
        except SesurgeryError:
            # Damaged since: whatever it was, nothing can be said of where it came from.
            continue
        if made.sha256 == digest:
            parents |= {parent.path: parent.sha256 for parent in made.parents}
    return False
