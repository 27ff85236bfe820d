"""The section `parity:` of a spec: how far an engine may be from the trained model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sesurgery.spec.bounds import Size
from sesurgery.spec.frozen import Fraction, Frozen


class Tolerance(Frozen):
    """How far an engine may be from the trained model; missing criteria are not checked."""

    max_abs: Annotated[float, Field(gt=0)] | None = Field(None, description="largest absolute difference of a logit")
    mean_abs: Annotated[float, Field(gt=0)] | None = Field(None, description="mean absolute difference of the logits")
    p99_abs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="99th percentile of each sample's largest absolute difference"
    )
    max_kl: Annotated[float, Field(gt=0)] | None = Field(
        None, description="largest KL divergence of the engine's softmax from the model's, in nats"
    )
    min_cosine: Fraction | None = Field(None, description="smallest cosine between the logits of one sample")
    min_agreement: Fraction | None = Field(None, description="smallest share of samples with the same predicted class")
    max_top1_drop: Fraction | None = Field(None, description="largest loss of top-1 accuracy against the trained model")
    max_top5_drop: Fraction | None = Field(None, description="largest loss of top-5 accuracy against the trained model")
    max_relative: Annotated[float, Field(gt=0)] | None = Field(
        None, description="on probes (noise, extremes): largest difference divided by the model's largest logit"
    )


class Parity(Frozen):
    """The tolerance of each precision."""

    fp32: Tolerance = Field(default_factory=lambda: Tolerance(max_abs=1e-3, min_agreement=1.0))
    fp16: Tolerance = Field(default_factory=lambda: Tolerance(max_abs=0.1, min_agreement=0.99, max_top1_drop=0.01))
    bf16: Tolerance = Field(default_factory=lambda: Tolerance(max_abs=0.5, min_agreement=0.98, max_top1_drop=0.01))
    int8: Tolerance = Field(default_factory=lambda: Tolerance(min_agreement=0.97, max_top1_drop=0.01))
    batches: Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)] = Field(
        (1, 32),
        description="batch sizes at which the engine is compared, over all held-out samples; by default also its "
        "smallest, an odd, its optimal and its largest",
    )
