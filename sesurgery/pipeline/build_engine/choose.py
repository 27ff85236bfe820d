"""`--backend auto`: build with every backend that can run here, compare, race, keep the fastest within parity."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sesurgery.artifacts import digest_text, to_json
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Backend
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail, suggest
from sesurgery.networks import checkpoint
from sesurgery.pipeline.build_engine.building import Attempt, BuildResult, build, existing
from sesurgery.pipeline.build_engine.request import BuildRequest
from sesurgery.pipeline.specs import backend_of, catalogs
from sesurgery.pipeline.verify.verify import verify
from sesurgery.spec.choice import AUTO, Auto
from sesurgery.spec.latency import Latency
from sesurgery.spec.parity import Parity, Tolerance
from sesurgery.training.data import data_of
from sesurgery.verification import noise
from sesurgery.verification.batches import Limits, limits, timed, tuned_for
from sesurgery.verification.estimates import Tax
from sesurgery.verification.file_parity import compare_outputs, infer_all
from sesurgery.verification.fresh_process import engine_file, race
from sesurgery.workspace import (
    EngineManifest,
    belonging,
    freshness,
    manifest_path,
    measurements,
    read_manifest,
    run_folder,
    write_manifest,
)
from sesurgery.workspace.details import Choice, TriedBackend


@dataclass(frozen=True)
class _Entrant:
    """An engine within parity that takes part in the race."""

    built: BuildResult
    max_abs: float
    median_ms: float | None = None

    @property
    def name(self) -> str:
        return self.built.manifest.details.backend

    def out(self, left: str | None) -> Attempt:
        return Attempt(self.name, self.median_ms, self.max_abs, left)


def choose(request: BuildRequest) -> BuildResult:
    """Build an engine with each backend, keep the fastest within parity, and delete the others.

    With a run, parity is the run's; without, an engine is compared with ONNX Runtime's fp32 engine of the same file on
    noise, under a spec's default tolerance. Raises SE604 if no backend is left.
    """
    candidates, tried = _candidates(request)
    targets = {each.target: each.ingredients() for each in candidates}
    key = digest_text(to_json([list(targets.values()), [asdict(each) for each in tried]]))
    if not request.again and (earlier := _kept(targets, key)) is not None:
        return earlier
    entrants: list[_Entrant] = []
    for candidate in candidates:
        name = candidate.wanted.backend.name
        try:
            built = build(candidate)
            worst, failure = _compare(built, request)
        except SesurgeryError as error:
            tried.append(Attempt(name, left=error.diagnostics[0].message))
            continue
        if failure is None:
            entrants.append(_Entrant(built, worst))
        else:
            tried.append(Attempt(name, max_abs=worst, left=f"falls short of parity: {failure}"))
    if not entrants:
        mistakes = [Diagnostic("SE604", f"{each.backend}: {each.left}") for each in tried]
        _remove(targets, None)
        raise SesurgeryError([Diagnostic("SE604", f"no backend is left to build {request.onnx}"), *mistakes])
    best, lost = _race(entrants, request)
    tried = [best.out(None), *lost, *tried]
    _remove(targets, best.built.path)
    return _written(best.built, tuple(tried), key)


def _candidates(request: BuildRequest) -> tuple[list[BuildRequest], list[Attempt]]:
    """The engines to build, and the backends that cannot build and run them here."""
    asked: Auto = request.wanted.backend.options
    known = BACKENDS.names()
    for name in asked.among or ():
        if name not in known:
            raise fail("SE105", f"unknown backend {name!r}", suggest(name, known))
    found: list[BuildRequest] = []
    tried: list[Attempt] = []
    for name in asked.among or known:
        backend: Backend = BACKENDS.load(name)()
        ability = backend.probe()
        if (why := ability.builds or ability.runs) is not None:
            tried.append(Attempt(name, left=why))
        elif request.wanted.precision not in backend.precisions:
            tried.append(Attempt(name, left=f"it does not build {request.wanted.precision}"))
        else:
            # Under separate names: engines that were built by naming their backend are left alone.
            found.append(request.of(name, AUTO))
    return found, tried


def _kept(targets: Mapping[Path, Mapping[str, str]], key: str) -> BuildResult | None:
    """The engine that an earlier choice among the same candidates kept, if it is unchanged."""
    for target, ingredients in targets.items():
        if freshness.stale(target, ingredients) is None:
            built = existing(target)
            choice = built.manifest.details.choice
            if choice is not None and choice.key == key:
                return replace(built, tried=tuple(Attempt(**each.model_dump()) for each in choice.tried))
    return None


def _compare(built: BuildResult, request: BuildRequest) -> tuple[float, str | None]:
    """The largest difference from what the engine should answer, and the first criterion that it does not meet."""
    if _run(built) is not None:
        verified = verify(built.path)
        worst = max((entry.report.max_abs for entry in verified.section.parity), default=math.inf)
        return worst, verified.failures[0].message if verified.failures else None
    onnx, wanted = request.onnx, request.wanted
    tolerance: Tolerance = getattr(Parity(), wanted.precision)
    backend = backend_of(built.manifest)
    worst = 0.0
    with BACKENDS.load("onnxruntime")().load(onnx) as reference, backend.load(built.path) as candidate:
        # More than one size: an engine can be right at the one it is tuned for only.
        for size in _sizes(limits(built.manifest.details.engine, candidate)):
            feeds = noise.noise(reference, wanted.shapes, size)
            # A file of a fixed batch takes that one.
            whole = max(map(len, feeds.values()))
            expected, found = (infer_all(runner, feeds, whole) for runner in (reference, candidate))
            for entry in compare_outputs(expected, found, size, tolerance):
                worst = max(worst, entry.report.max_abs)
                if not entry.report.passed:
                    return worst, f"output {entry.output!r} at batch {size}: {entry.report.failures[0]}"
    return worst, None


def _sizes(taken: Limits) -> tuple[int, ...]:
    """The smallest batch, and the largest that there is noise for."""
    few = [size for size in range(taken.smallest, min(noise.SAMPLES, taken.largest) + 1) if taken.takes(size)]
    return tuple(dict.fromkeys((taken.smallest, *few[-1:])))


def _race(entrants: list[_Entrant], request: BuildRequest) -> tuple[_Entrant, list[Attempt]]:
    """Race each engine against the best so far; the earlier one stays unless the later is significantly faster."""
    best, lost, wanted, talk = entrants[0], [], request.wanted, request.talk
    folder = _run(best.built)
    spec = checkpoint.read_spec(folder, catalogs()) if folder else None
    # Without a spec: its defaults, at the batch that the engine is tuned for.
    asked = best.built.manifest.details.engine
    options = timed(spec.latency, asked) if spec else Latency(batch=tuned_for(asked))
    threads = options.threads or len(os.sched_getaffinity(0))
    images = data_of(spec).held_out.images[: options.batch].numpy() if spec else None
    for challenger in entrants[1:]:
        talk.say(f"racing {challenger.name} against {best.name}")
        files = [engine_file(each.name, each.built.path, each.built.manifest, threads) for each in (challenger, best)]
        with files[0].load() as new:
            feeds = (
                {new.inputs[0].name: images} if images is not None else noise.noise(new, wanted.shapes, options.batch)
            )
        report = race(files, feeds, options, talk.progress)
        if report.doubt:
            talk.say(f"warning: {challenger.name} against {best.name}: {report.doubt}")
        tax = report.tax
        if tax is None or report.baseline is None:
            raise RuntimeError("a race of two engines gives a ratio")
        challenger = replace(challenger, median_ms=1e3 * report.candidate.stats.median_seconds)
        best = replace(best, median_ms=1e3 * report.baseline.stats.median_seconds)
        if tax.high < 0:
            lost.append(best.out(f"slower: {challenger.name} takes {_interval(tax)} against it"))
            best = challenger
        elif tax.includes_zero:
            lost.append(challenger.out(f"not significantly different from {best.name}: {_interval(tax)}"))
        else:
            lost.append(challenger.out(f"slower: it takes {_interval(tax)} against {best.name}"))
    return best, lost


def _interval(tax: Tax) -> str:
    return f"{100 * tax.value:+.1f} % ({100 * tax.low:+.1f} to {100 * tax.high:+.1f} %)"


def _run(built: BuildResult) -> Path | None:
    """The run to compare an engine with; there is none for the plain network."""
    return None if built.manifest.details.plain else run_folder(built.path, built.manifest)


def _remove(targets: Iterable[Path], best: Path | None) -> None:
    """Delete the engines that were built only for the race."""
    for path in targets:
        if path != best and manifest_path(path).is_file():
            manifest = read_manifest(path, EngineManifest)
            if (folder := run_folder(path, manifest)) is not None:
                measurements.forget(folder, path)
            for item in (*belonging(path, manifest), manifest_path(path)):
                item.unlink(missing_ok=True)


def _written(built: BuildResult, tried: tuple[Attempt, ...], key: str) -> BuildResult:
    """The engine with the choice in its manifest: for the report, and so that it is not made again."""
    others = "; ".join(f"{each.backend}: {each.left}" for each in tried if each.left is not None)
    note = f"chosen by auto{f' ({others})' if others else ''}"
    changes = {
        "notes": (*built.report.notes, note),
        "choice": Choice(key=key, tried=tuple(TriedBackend(**asdict(each)) for each in tried)),
    }
    details = built.manifest.details.model_copy(update=changes)
    manifest = write_manifest(built.path, built.manifest.model_copy(update={"details": details}))
    return replace(built, manifest=manifest, why=built.why or "the backend was chosen again", tried=tried)
