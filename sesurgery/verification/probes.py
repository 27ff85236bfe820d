"""Synthetic inputs: seeded noise, and images with low, high or extreme contrast.

Held-out samples resemble the training data. A squeeze that overflows, a range calibrated on ordinary images, or a
kernel that loses small values shows only on other inputs. The engine is compared with the model's own outputs, so no
labels are needed. These logits can have any size, so errors are relative to the model's largest logit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sesurgery.verification.proportions import Share, share

Images = NDArray[np.float32]
SAMPLES = 8
"""Samples of each probe."""
SEED = 1709
STRONG, FAINT = 4.0, 1 / 64
BLOCK = 4
"""Side of the squares of extreme values in pixels: the first convolution would average single pixels away."""
TINY = 1e-30


@dataclass(frozen=True)
class ProbeParity:
    """An engine compared with the model on one kind of input.

    `max_relative` is the largest difference of a logit over the model's largest logit, infinite if the engine gives NaN
    or infinity; `allowed` is its bound, None if there is none. `same_class` is `agreement` with its interval; None if
    an earlier version measured.
    """

    name: str
    samples: int
    batch: int
    max_relative: float
    agreement: float
    nonfinite: int
    allowed: float | None = None
    same_class: Share | None = None

    @property
    def passed(self) -> bool:
        """Whether it met the criterion; NaN never does."""
        return self.allowed is None or self.max_relative <= self.allowed

    @property
    def failure(self) -> str | None:
        """The bound and the measured value if the criterion is not met, else None."""
        if self.passed:
            return None
        found = (
            f"NaN or infinity in {self.nonfinite} of {self.samples} samples"
            if self.nonfinite
            else f"{self.max_relative:.3g}"
        )
        return f"max_relative on {self.name}: asked <= {self.allowed:.6g}, found {found}"


def probes(images: Images, samples: int = SAMPLES) -> Iterator[tuple[str, Images]]:
    """Names and inputs [samples, C, H, W], made from held-out `images` [n, C, H, W]; equal on every machine."""
    random = np.random.default_rng(SEED)
    some = np.resize(images, (samples, *images.shape[1:]))
    over = (0, 2, 3)
    mean, deviation = images.mean(over, keepdims=True), images.std(over, keepdims=True)
    low, high = images.min(over, keepdims=True), images.max(over, keepdims=True)
    yield "noise", _single(mean + deviation * random.normal(size=some.shape))
    height, width = some.shape[2:]
    few = random.random((samples, some.shape[1], -(-height // BLOCK), -(-width // BLOCK))) < 0.5
    coarse = few.repeat(BLOCK, 2).repeat(BLOCK, 3)[:, :, :height, :width]
    yield "extremes", _single(np.where(coarse, low, high))
    yield "strong images", _single(STRONG * some)
    yield "faint images", _single(FAINT * some)
    yield "blank images", np.zeros_like(some)


def compare_probe(
    name: str, reference: NDArray[np.generic], candidate: NDArray[np.generic], batch: int, allowed: float | None
) -> ProbeParity | None:
    """Logits [n, classes] of the model and of an engine on a probe; None if the model's own are not finite."""
    trained, engine = reference.astype(np.float64), candidate.astype(np.float64)
    if not np.isfinite(trained).all():
        return None
    finite = np.isfinite(engine).all(axis=1)
    same = share(int((finite & (trained.argmax(1) == engine.argmax(1))).sum()), len(trained))
    apart = np.abs(trained[finite] - engine[finite]).max(initial=0.0) / max(float(np.abs(trained).max()), TINY)
    return ProbeParity(
        name=name,
        samples=len(trained),
        batch=batch,
        max_relative=float(apart) if finite.all() else float("inf"),
        agreement=same.value,
        nonfinite=int((~finite).sum()),
        allowed=allowed,
        same_class=same,
    )


def _single(values: NDArray[np.floating]) -> Images:
    made: Images = np.ascontiguousarray(values, np.float32)
    return made
