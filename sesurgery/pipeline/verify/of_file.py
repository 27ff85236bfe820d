"""The verb `verify` where there is no run: an engine against the ONNX file of its network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import Diagnostic, fail
from sesurgery.pipeline.build_engine.engine_files import as_engine
from sesurgery.pipeline.specs import backend_of
from sesurgery.serving.loadable import require_loadable
from sesurgery.spec.parity import Parity, Tolerance
from sesurgery.talk import Silent, Talk
from sesurgery.verification import batches, noise
from sesurgery.verification.file_parity import FileParity, OutputParity, compare_outputs, infer_all
from sesurgery.workspace import EngineManifest
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.sample_files import arrays_of

OPTION = "--samples FILE.npz"


@dataclass(frozen=True)
class FileVerifyRequest:
    """An engine, or an ONNX file of which one is built, to compare with another ONNX file."""

    engine: Path
    workspace: Workspace
    against: Path | None = None
    """Left out: the file that the engine was built from, before any lowering."""
    samples: Path | None = None
    """Arrays by the inputs' names; left out: noise."""
    tolerance: Tolerance | None = None
    """Left out: a spec's default for the engine's precision."""
    foreign: bool = False
    talk: Talk = field(default_factory=Silent)


@dataclass(frozen=True)
class FileVerifyResult:
    """What was compared, and what was asked."""

    engine: Path
    parity: FileParity
    tolerance: Tolerance

    @property
    def failures(self) -> tuple[Diagnostic, ...]:
        """Every criterion that was not met and every batch size left out."""
        hint = "a tolerance of your own: --tolerance max_abs=0.1; your own samples instead of noise: --samples FILE.npz"
        broken = tuple(Diagnostic("SE701", f"{self.engine.name} {each}", hint=hint) for each in self.parity.failures)
        left = "give more samples, or build the engine for smaller batches"
        return broken + tuple(
            Diagnostic("SE701", f"{self.engine.name} was not verified at {why}", hint=left)
            for why in self.parity.unverified
        )


def verify_file(request: FileVerifyRequest) -> FileVerifyResult:
    """Compare every output of an engine with that of an ONNX file in ONNX Runtime, at several batch sizes.

    Raises SE402 where there is no file to compare with or an int8 engine comes without samples, SE603 where the engine
    cannot run here, and SE606 where the two are not of one network.
    """
    engine = as_engine(request.engine, request.workspace, talk=request.talk)
    manifest = require_loadable(engine, foreign=request.foreign)
    details = manifest.details
    against = request.against or manifest.onnx_file(engine)
    if not against.is_file():
        text = f"{against.as_posix()}, which {engine.name} is to be compared with, is not there"
        raise fail("SE402", text, "name a file: `sesurgery verify ENGINE --against FILE.onnx`")
    if details.precision == "int8" and request.samples is None and request.tolerance is None:
        text = f"{engine.name} was calibrated on real samples: comparing it on random noise proves nothing"
        raise fail("SE402", text, f"give {OPTION}; or say what to ask on noise, as --tolerance min_cosine=0.9")
    tolerance = request.tolerance or getattr(Parity(), details.precision)
    with BACKENDS.load("onnxruntime")().load(against) as reference, backend_of(manifest).load(engine) as runner:
        entries, unverified, words = _compared(request, manifest, reference, runner, tolerance)
    parity = FileParity(
        engine.as_posix(), details.backend, details.precision, against.as_posix(), words, entries, unverified
    )
    return FileVerifyResult(engine, parity, tolerance)


def _compared(
    request: FileVerifyRequest, manifest: EngineManifest, reference: Runner, runner: Runner, tolerance: Tolerance
) -> tuple[tuple[OutputParity, ...], tuple[str, ...], str]:
    asked = manifest.details.engine
    limits = batches.limits(asked, runner)
    feeds, words = _samples(request, asked.shapes, runner, batches.whole(noise.SAMPLES, limits.smallest))
    # Profiles for samples of other sizes take other batches.
    limits = batches.limits(asked, runner, feeds[runner.inputs[0].name].shape[1:])
    count = min(map(len, feeds.values()), default=0)
    entries: list[OutputParity] = []
    left: list[str] = []
    for batch in batches.chosen(Parity().batches, False, limits, count):
        if (why := batches.impossible(batch, limits, count)) is not None:
            left.append(f"batch {batch}: {why}")
            continue
        # A file of a fixed batch takes no rest, and an engine only one that its profiles take.
        own = _fixed(reference)
        whole = batches.answered(count - count % (own or 1), batch, limits)
        cut = {name: array[:whole] for name, array in feeds.items()}
        if not whole:
            left.append(f"batch {batch}: the file takes {own} samples at a time, there are {count}")
            continue
        entries += compare_outputs(
            infer_all(reference, cut, own or batch), infer_all(runner, cut, batch), batch, tolerance
        )
    return tuple(entries), tuple(left), words


def _samples(
    request: FileVerifyRequest, shapes: tuple[str, ...], runner: Runner, count: int
) -> tuple[dict[str, Array], str]:
    """Samples for every input, and where they come from in words."""
    if request.samples is None:
        return noise.many(runner, shapes, count), f"{count} samples of noise"
    feeds = arrays_of(request.samples, [info.name for info in runner.inputs], OPTION)
    lengths = {len(array) if array.ndim else 0 for array in feeds.values()}
    if len(lengths) != 1 or lengths == {0}:
        text = f"{request.samples} holds {', '.join(map(str, sorted(lengths)))} samples of its inputs"
        raise fail("SE606", text, "as many of each input, at least one")
    return feeds, f"{lengths.pop()} samples of {request.samples.as_posix()}"


def _fixed(runner: Runner) -> int | None:
    """The batch that a file takes alone, None where it is open."""
    size = runner.inputs[0].shape[0] if runner.inputs and runner.inputs[0].shape else None
    return size if isinstance(size, int) else None
