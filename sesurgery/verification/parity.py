"""Compare an engine's logits with the trained model's by explicit criteria."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from sesurgery.backends.base import Array
from sesurgery.diagnostics import fail
from sesurgery.spec.parity import Tolerance
from sesurgery.verification.answers import Answers, compare_answers, divergences
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.drift import Drift, Repair
from sesurgery.verification.flips import FlippedSample
from sesurgery.verification.predicting import classes_of
from sesurgery.verification.probes import ProbeParity
from sesurgery.workspace.measurements import Kind, Of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """One criterion: its name, the bound and its direction, and the measured value."""

    name: str
    sign: str
    allowed: float
    found: float

    @property
    def met(self) -> bool:
        # NaN compares false with everything, so it never meets a criterion.
        return self.found <= self.allowed if self.sign == "<=" else self.found >= self.allowed

    def __str__(self) -> str:
        allowed, found = f"{self.allowed:.6g}", f"{self.found:.6g}"
        # "asked >= 1, found 1" would be confusing: a small miss shows all its digits.
        if allowed == found and not self.met:
            allowed, found = repr(self.allowed), repr(self.found)
        return f"{self.name}: asked {self.sign} {allowed}, found {found}"


@dataclass(frozen=True)
class ParityReport:
    """An engine's logits compared with the trained model's.

    A sample with NaN or infinity counts as wrong and as disagreeing; errors are then infinite and cosines NaN.
    `sample_errors` is each sample's largest absolute logit error, `sample_margins` how far the model's first class
    lies above its second: an error below half the margin cannot change the answer. `p99_abs` is the 99th percentile of
    `sample_errors`; `mean_kl` and `max_kl` are of the softmax, in nats; None if an earlier version
    measured.
    """

    samples: int
    classes: int
    reference_top1: float
    candidate_top1: float
    agreement: float
    max_abs: float
    mean_abs: float
    min_cosine: float
    mean_cosine: float
    worst_sample: int
    nonfinite_samples: int
    criteria: tuple[Criterion, ...]
    sample_errors: tuple[float, ...]
    sample_margins: tuple[float, ...]
    disagreeing: tuple[int, ...]
    p99_abs: float | None = None
    mean_kl: float | None = None
    max_kl: float | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        if len(self.sample_errors) != len(self.sample_margins):
            told = f"{len(self.sample_errors)} errors, {len(self.sample_margins)} margins"
            raise ValueError(f"every sample has an error and a margin: expected as many of both, found {told}")
        if not all(0 <= margin < math.inf for margin in self.sample_margins):
            raise ValueError("a margin is a finite number, 0 or more")

    @property
    def failures(self) -> tuple[str, ...]:
        """Every criterion that is not met, with its bound and the measured value."""
        broken: tuple[str, ...] = ()
        if self.nonfinite_samples:
            broken = (
                f"finite logits: asked for in every sample, found NaN or infinity in {self.nonfinite_samples} "
                f"of {self.samples} (sample {self.worst_sample} for one)",
            )
        return broken + tuple(str(criterion) for criterion in self.criteria if not criterion.met)

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True)
class BatchParity:
    """The engine compared with the trained model at one batch size."""

    batch: int
    report: ParityReport


@dataclass(frozen=True)
class EngineParity:
    """An engine compared with the trained model at every batch size, and the sizes that could not be compared.

    `probes` are synthetic inputs. `flipped` has some of the samples whose class changed, at the batch size with the
    most changes. `diagnosis` is the fault of an engine that fails, else None. `drift` and `repairs` are set on request.
    """

    # JSON has no NaN and no infinity, so they are written as strings.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")
    of: Of
    entries: tuple[BatchParity, ...]
    unverified: tuple[str, ...] = ()
    probes: tuple[ProbeParity, ...] = ()
    flipped: tuple[FlippedSample, ...] = ()
    diagnosis: Diagnosis | None = None
    drift: Drift | None = None
    repairs: tuple[Repair, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all comparisons met their criteria."""
        return all(entry.report.passed for entry in self.entries) and all(probe.passed for probe in self.probes)


PARITY = Kind("parity", EngineParity, "sesurgery verify")


def compare(reference: Array, candidate: Array, labels: Array, tolerance: Tolerance) -> ParityReport:
    """Compare logits [N, classes] of the trained model and of an engine on the same samples with `labels` [N].

    Raises SE606 if the shapes differ or the reference is not finite, SE501 if the labels do not fit, and SE102
    where the tolerance asks for nothing.
    """
    _require_comparable(reference, candidate, labels, tolerance)
    trained, engine = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.asarray(np.isfinite(engine).all(axis=1))
    errors, means, cosines = _differences(trained, engine, finite)
    answers, expected = classes_of(engine), trained.argmax(axis=1)
    right, right_before, agreed = answers == labels, expected == labels, answers == expected
    told = compare_answers(trained, engine, labels, expected, answers)
    apart = divergences(trained, engine, finite)
    found = {
        "max_abs": float(errors.max()),
        # Interpolating between finite and infinite values would give NaN.
        "p99_abs": float(np.percentile(errors, 99, method="higher")),
        "mean_abs": float(means.mean()),
        "min_cosine": float(cosines.min()),
        "min_agreement": float(agreed.mean()),
        # From counts, because the difference of two rounded shares can miss a bound that is met exactly.
        "max_top1_drop": (int(right_before.sum()) - int(right.sum())) / len(labels),
        "max_top5_drop": (told.reference_top5.hits - told.candidate_top5.hits) / len(labels),
        "max_kl": float(apart.max()),
    }
    return ParityReport(
        samples=len(labels),
        classes=trained.shape[1],
        reference_top1=float(right_before.mean()),
        candidate_top1=float(right.mean()),
        agreement=found["min_agreement"],
        max_abs=found["max_abs"],
        mean_abs=found["mean_abs"],
        min_cosine=found["min_cosine"],
        mean_cosine=float(cosines.mean()),
        worst_sample=int(errors.argmax()),
        nonfinite_samples=int((~finite).sum()),
        criteria=_criteria(tolerance, found),
        sample_errors=tuple(errors.tolist()),
        sample_margins=tuple(_margins(trained).tolist()),
        disagreeing=tuple(np.flatnonzero(~agreed).tolist()),
        p99_abs=found["p99_abs"],
        mean_kl=float(apart.mean()),
        max_kl=found["max_kl"],
        answers=told,
    )


def _criteria(tolerance: Tolerance, found: Mapping[str, float]) -> tuple[Criterion, ...]:
    return tuple(
        Criterion(name, ">=" if name in ("min_cosine", "min_agreement") else "<=", allowed, found[name])
        for name, allowed in _asked(tolerance)
    )


def _asked(tolerance: Tolerance) -> Iterator[tuple[str, float]]:
    for name in type(tolerance).model_fields:
        # That one is asked of probes, which have no labels and logits of any size.
        if name != "max_relative" and (allowed := getattr(tolerance, name)) is not None:
            yield name, allowed


def _require_comparable(reference: Array, candidate: Array, labels: Array, tolerance: Tolerance) -> None:
    if reference.ndim != 2 or reference.shape != candidate.shape:
        raise fail(
            "SE606",
            f"logits of one shape [N, classes] are expected; the model gave {list(reference.shape)}, "
            f"the engine {list(candidate.shape)}",
        )
    if not reference.size:
        raise fail("SE501", "there are no samples to compare on")
    if labels.shape != (len(reference),) or labels.min() < 0 or labels.max() >= reference.shape[1]:
        raise fail(
            "SE501",
            f"{len(reference)} labels from 0 to {reference.shape[1] - 1} are expected; "
            f"found {list(labels.shape)} with values from {labels.min()} to {labels.max()}"
            if labels.size
            else f"{len(reference)} labels are expected; found none",
        )
    if not np.isfinite(reference).all():
        raise fail("SE606", "the trained model itself gives NaN or infinity: there is nothing to compare with")
    if next(_asked(tolerance), None) is None:
        known = ", ".join(type(tolerance).model_fields)
        raise fail("SE102", "the tolerance has no criterion, so anything would pass", f"give at least one of: {known}")


def _differences(trained: Floats, engine: Floats, finite: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """The largest and the mean absolute error and the cosine of each sample (two zero vectors count as equal)."""
    largest, means = np.full(len(trained), np.inf), np.full(len(trained), np.inf)
    cosines = np.full(len(trained), np.nan)
    error = np.abs(trained[finite] - engine[finite])
    largest[finite], means[finite] = error.max(axis=1), error.mean(axis=1)
    before, after = _unit(trained[finite]), _unit(engine[finite])
    # 1 - |u - v|^2 / 2 instead of u . v: equal vectors give exactly one, and nearly equal ones keep their digits.
    cosines[finite] = 1 - ((before - after) ** 2).sum(axis=1) / 2
    vanished = (~before.any(axis=1)) ^ (~after.any(axis=1))
    cosines[finite] = np.where(vanished, 0.0, cosines[finite])
    return largest, means, cosines


def _unit(rows: Floats) -> Floats:
    """Each row scaled to length one; a row of zeros stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)


def _margins(trained: Floats) -> Floats:
    """The distance between each sample's first and second logit; zero if there is only one class."""
    if trained.shape[1] < 2:
        return np.zeros(len(trained))
    top = np.partition(trained, -2, axis=1)
    return top[:, -1] - top[:, -2]
