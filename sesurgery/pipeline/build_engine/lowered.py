"""The ONNX file that an engine is built from: lowered for its backend, then written in its precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnx as onnx_library
from numpy.typing import NDArray

from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Backend
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.lowering import load as passes
from sesurgery.lowering.base import Lowered, Pass, name_of
from sesurgery.lowering.base import run as lower
from sesurgery.lowering.precision import int8 as quantize
from sesurgery.lowering.precision.autocast import AutoCast
from sesurgery.lowering.precision.half import SAFE, Precision
from sesurgery.lowering.precision.kept_fp32 import summary
from sesurgery.lowering.precision.ranges import measure
from sesurgery.lowering.preparing import prepared
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.batch import for_one_sample
from sesurgery.pipeline.build_engine import calibration
from sesurgery.pipeline.build_engine.request import AS_EXPORTED, BuildRequest
from sesurgery.spec.choice import AUTO
from sesurgery.spec.engines import Calibration, Engine
from sesurgery.talk import Talk
from sesurgery.verification import weight_bits
from sesurgery.workspace import OnnxDetails, OnnxManifest, Provenance, describe, relative
from sesurgery.workspace.details import Int8Weights
from sesurgery.workspace.origin import Origin
from sesurgery.workspace.targets import claim

SPOILED = {"bf16": ("gate_epilogue",), "int8": ("gate_epilogue", "gate_weights", "squeeze_pool")}
"""Passes that are left out for a precision.

The compiler has no transposed convolution for bf16 or int8, and a convolution with computed weights would not run in
int8. With integer kernels a pool brings no gain: their maps are not blocked (`benchmarks/pass_pays.py precisions`).
"""
JUDGED = 16
"""Samples on which the network before and after quantization are compared."""
Feeds = list[Mapping[str, NDArray[np.generic]]]


class _OfData(TypedDict, total=False):
    """What the file's manifest says of the samples that took part, and of int8; what did not happen is not written."""

    lowering_samples: str
    calibration: str
    method: str
    difference: float | None
    int8_weights: Int8Weights


@dataclass(frozen=True)
class _Start:
    """The input of the passes: the prepared file, what was done to prepare it, and whether it is for single samples."""

    model: onnx_library.ModelProto
    passes: tuple[Pass, ...]
    notes: tuple[str, ...] = ()
    single: bool = False


def lowered(request: BuildRequest, source: Origin) -> Path:
    """The file that the engine is built from: the given file if nothing changes, else a new one in export/.

    Raises SE402 if int8 has no samples, SE602 if a pass cannot start, SE607 if one breaks its promise, and
    SE605 if integer kernels here do not compute what an int8 file says.
    """
    wanted, talk = request.wanted, request.talk
    chosen = passes(passes_for(request.backend, wanted, request.lowering))
    if not chosen and not _for_single_samples(wanted) and wanted.precision == "fp32":
        return source.path
    start = _start(request, source, chosen)
    chosen, details = _able(request, source, start)
    shaped = lower(start.model, chosen, verify=request.proved) if chosen else Lowered(start.model, ())
    changed = sum(edit.changed for edit in shaped.edits)
    for note in (*shaped.notes, *(start.notes if changed else ())):
        talk.say(note)
    if changed:
        talk.say(f"lowered for {wanted.backend.name}: {changed} edits")
    elif wanted.precision == "fp32" and not start.single:
        return source.path
    precise, of_precision = _precise(shaped.model, source, wanted, talk)
    label = label_of(request, bool(changed), start.single)
    return _written(request, source, label, shaped, precise, {**details, **of_precision})


def _for_single_samples(wanted: Engine) -> bool:
    return wanted.batch.min == wanted.batch.max == 1 and not wanted.shapes


def _start(request: BuildRequest, source: Origin, chosen: tuple[Pass, ...]) -> _Start:
    model, notes = onnx_io.load(source.path), tuple[str, ...]()
    if chosen or request.wanted.precision != "fp32":
        try:
            ready = prepared(model, verify=request.proved)
            model, notes = ready.model, ready.notes
        except SesurgeryError as error:
            # A pass that was not asked for must not prevent a build.
            if request.lowering is not None or request.wanted.precision != "fp32":
                raise
            request.talk.say(f"not lowered for {request.wanted.backend.name}: {error.diagnostics[0].message}")
            chosen = ()
    # An engine for single samples gets a file with a fixed batch: some passes need to know.
    single = for_one_sample(model) if _for_single_samples(request.wanted) else None
    return _Start(single or model, chosen, notes, single is not None)


def _able(request: BuildRequest, source: Origin, start: _Start) -> tuple[tuple[Pass, ...], _OfData]:
    """The passes that can start, with the samples they decide by, and the manifest's details on those samples."""
    chosen, details = start.passes, _OfData()
    deciding = [name_of(step) for step in chosen if step.needs_samples]
    if deciding and (found := calibration.samples(start.model, source, request.wanted.calibration)):
        request.talk.say(f"{', '.join(deciding)} decides by {found[1]}")
        chosen = tuple(step.with_samples(found[0]) for step in chosen)
        details["lowering_samples"] = found[1]
    if request.lowering is None:
        # A pass that was not asked for must not prevent a build.
        obstacles = {obstacle for step in chosen if (obstacle := step.requires(start.model)) is not None}
        for obstacle in sorted(obstacles):
            request.talk.say(f"not lowered for {request.wanted.backend.name}: {obstacle}")
        chosen = () if obstacles else chosen
    return chosen, details


def _written(
    request: BuildRequest, source: Origin, label: str, shaped: Lowered, precise: Lowered, details: _OfData
) -> Path:
    """Write the file with its manifest, which lists what was lowered, what was not, and what stayed fp32."""
    wanted = request.wanted
    target = request.workspace.exports / f"{source.path.stem}.{label}.onnx"
    # Our own file may be replaced, but not the file it is made from.
    needs = (*onnx_io.files(source.path), *((Path(wanted.calibration.file),) if wanted.calibration.file else ()))
    claim(target, needs=needs, beside=(onnx_io.data_path(target),), force=True)
    kept = [edit.reason for edit in precise.edits if not edit.changed]
    if kept and wanted.precision not in request.backend.uniform:
        request.talk.say(f"kept in fp32: {summary(kept)}; each is named in {target.name}.manifest.json")
    onnx_io.save(precise.model, target)
    origin, run = source.manifest, source.run
    samples = wanted.calibration.file
    describe(
        target,
        Provenance(
            OnnxManifest,
            target.stem,
            request.command,
            parents=(source.path, *((Path(samples),) if samples and Path(samples).is_file() else ())),
            beside=onnx_io.beside(target),
            spec_digest=origin.spec_digest if origin else None,
            plan_digest=origin.plan_digest if origin else None,
            details=OnnxDetails(
                run=None if run is None else relative(run, target),
                plain=source.plain,
                precision=wanted.precision,
                lowered=tuple(edit.reason for edit in shaped.edits if edit.changed),
                not_lowered=tuple(edit.reason for edit in shaped.edits if not edit.changed),
                lowering_notes=shaped.notes,
                kept_fp32=tuple(kept),
                **details,
            ),
        ),
    )
    return target


def passes_for(backend: Backend, wanted: Engine, lowering: tuple[str, ...] | None) -> tuple[str, ...]:
    """The lowering passes before the precision: those named, or those of the backend that go with the precision."""
    if lowering is not None:
        return lowering
    if wanted.precision not in backend.lowered:
        return ()
    return tuple(name for name in backend.passes if name not in SPOILED.get(wanted.precision, ()))


def require_possible(wanted: Engine, origin: Origin) -> None:
    """Raises SE603 if the backend has no such precision or a converter is missing, and SE402 if samples are.

    Asked before anything is written.
    """
    backend: Backend = wanted.backend.options
    if wanted.precision not in backend.precisions:
        able = [AUTO, *(name for name in BACKENDS.names() if wanted.precision in BACKENDS.load(name).precisions)]
        text = (
            f"{wanted.backend.name} has no {wanted.precision} convolutions: it builds {', '.join(backend.precisions)}"
        )
        raise fail("SE603", text, f"--backend {', '.join(able)} may, or take another precision")
    if wanted.precision == "int8" and wanted.calibration.file is None and origin.run is None:
        text = "int8 needs samples to find ranges on, and this file came from no run whose training data could be used"
        raise fail("SE402", text, f"give {calibration.OPTION}")
    if wanted.converter == "autocast" and wanted.precision in ("fp16", "bf16"):
        AutoCast.require_installed()


def _precise(model: onnx_library.ModelProto, origin: Origin, wanted: Engine, talk: Talk) -> tuple[Lowered, _OfData]:
    """The model in the precision wanted, and what its manifest says of the data that took part."""
    if wanted.precision == "fp32":
        return Lowered(model, ()), {}
    found = calibration.samples(model, origin, wanted.calibration) if wanted.precision != "bf16" else None
    feeds, source = found or ([], "")
    details: _OfData = {"calibration": source} if found else {}
    if wanted.precision == "int8":
        talk.say(f"calibrating by {wanted.calibration.method} on {source}")
        backend: Backend = wanted.backend.options
        chosen = weight_bits.choose(backend, wanted.calibration.weights)
        talk.say(str(chosen))
        ranges = quantize.ranges_of(model, feeds, wanted.calibration.method)
        step: Pass = quantize.Quantize(ranges, backend.int8_activations, chosen.bits, wanted.keep_fp32)
        done = lower(model, [step], verify=feeds[:JUDGED])
        difference = done.differences.get(name_of(step))
        proof = weight_bits.prove_kernels(wanted.backend.name, backend, done.model, feeds[:JUDGED], chosen.bits)
        talk.say(f"integer kernels: {proof}")
        return done, {
            **details,
            "method": wanted.calibration.method,
            "difference": difference,
            "int8_weights": Int8Weights(bits=chosen.bits, why=chosen.why, kernels=str(proof)),
        }
    reaches = {}
    if found:
        talk.say(f"looking for values too large for fp16 in {source}")
        reaches = measure(model, feeds, SAFE)
    elif wanted.precision == "fp16":
        talk.say(f"ranges were not checked: no samples are known (give {calibration.OPTION})")
    step = Precision(wanted.precision, wanted.io, reaches, wanted.keep_fp32)
    if wanted.converter == "autocast":
        step = AutoCast(step, tuple(feeds[:JUDGED]))
    return lower(model, [step]), details


def label_of(request: BuildRequest, changed: bool, single: bool) -> str:
    """The part of the file name that distinguishes it; it contains the backend only where that matters."""
    wanted = request.wanted
    asked = (wanted.calibration, wanted.io, wanted.converter, wanted.keep_fp32)
    own = asked != (Calibration(), "keep", "sesurgery", ())
    apart = changed or own or (wanted.precision == "int8" and not _for_any(request.backend))
    parts = [wanted.backend.name if apart else None, wanted.precision, wanted.name if own else None]
    # The baseline needs a name of its own beside the lowered file.
    parts += ["batch1" if single else None, AS_EXPORTED if request.as_exported else None]
    return ".".join(part for part in parts if part)


def _for_any(backend: Backend) -> bool:
    """Whether an int8 file for this backend is correct on every backend: signed, with 7-bit weights."""
    return backend.int8_activations == "int8" and backend.wide_sums is None
