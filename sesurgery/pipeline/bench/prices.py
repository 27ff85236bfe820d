"""What each block of a plan costs on a backend: before any training, or of a run's engine.

`bench --per-block` asks it of a trained run's engine, block by block. `plan --price` asks it before any training:
latency does not depend on the weights. There, blocks that are alike are weighed together, which takes fewer engines and
tells the price of one with less error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.pipeline.bench.pricing import Subject, prices
from sesurgery.pipeline.inspect import draw
from sesurgery.pipeline.plan import NetworkPlan, carry_out, plan
from sesurgery.pipeline.specs import catalogs, engine_of
from sesurgery.pipeline.verify.verify import run_of
from sesurgery.reports.text.prices import labels
from sesurgery.spec.engines import Engine
from sesurgery.spec.latency import Latency
from sesurgery.talk import Silent, Talk
from sesurgery.training.data import data_of
from sesurgery.verification.batches import timed
from sesurgery.verification.cost import PRICES, EnginePrices, Prices
from sesurgery.workspace import require_intact, run_files
from sesurgery.workspace.measurements import Of

QUICK = Latency(rounds=20, repeats=3, placements=4, half_width=0.0005, more_seconds=30, warmup_seconds=0.2)
"""The races of a plan's prices: until each price is known to half a thousandth of a run, or some 30 s are over."""
PER_BLOCK = QUICK.model_copy(update={"rounds": 30, "placements": 6, "more_seconds": 90})
"""Those of a run's engine."""
NO_PRICES = (
    "a plan for an ONNX file has no prices: `plan --price` exports the changed network of torch",
    "build engines of the file before and after `apply`, and race them",
)
"""Why a plan for a file has no prices, and what to do instead."""


def price_plan(
    planned: NetworkPlan, wanted: Engine, *, batch: int = 1, seconds: float | None = None, talk: Talk | None = None
) -> Prices:
    """The price list of a plan, from engines with untrained weights.

    `seconds` may be spent on narrowing the intervals. Raises SE302 if the network is a file, SE402 if the plan
    has no block, and what building raises.
    """
    return prices(plan_subject(planned, wanted, batch=batch, seconds=seconds, talk=talk))


def plan_subject(
    planned: NetworkPlan, wanted: Engine, *, batch: int = 1, seconds: float | None = None, talk: Talk | None = None
) -> Subject:
    """What `price_plan` prices: the changed network of a plan, exported as it is."""
    import torch

    from sesurgery.networks.export import INPUT, convert

    planned.network.require_module(*NO_PRICES)
    with torch.random.fork_rng(devices=[]):
        planned, network = carry_out(planned)
    changed = network.require_module(*NO_PRICES)
    images = np.random.default_rng(0).normal(size=(batch, *planned.spec.input.shape)).astype(np.float32)
    return Subject(
        name=planned.spec.name,
        model=convert(changed.eval(), planned.spec.input.shape, planned.spec.export),
        plan=planned.plan,
        inside=_inside(planned.spec.model),
        wanted=wanted,
        latency=_latency(QUICK, batch, planned.spec.latency.threads, seconds),
        feeds={INPUT: images},
        trained=False,
        together=True,
        lowering=planned.spec.export.lowering,
        talk=talk or Silent(),
    )


@dataclass(frozen=True)
class PriceResult:
    """An engine's price list, and the picture of its network coloured by it."""

    prices: Prices
    picture: Path


def price_engine(
    engine: Path, *, foreign: bool = False, seconds: float | None = None, talk: Talk | None = None
) -> PriceResult:
    """The price list of a run's engine; it is kept beside the run. Raises as `bench` does."""
    manifest, folder = run_of(engine, foreign=foreign)
    run = checkpoint.read(folder, catalogs())
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    subject = run_subject(run, engine_of(manifest), manifest.details.lowering, seconds=seconds, talk=talk)
    found = prices(subject)
    PRICES.write(folder, engine.name, EnginePrices(Of(manifest.sha256, weights), found))
    picture = folder / f"{engine.name}.prices.svg"
    return PriceResult(found, draw(plan(run.spec), picture, prices=labels(found), force=True))


def run_subject(
    run: Run,
    wanted: Engine,
    lowering: tuple[str, ...] | None,
    *,
    seconds: float | None = None,
    talk: Talk | None = None,
) -> Subject:
    """What `price_engine` prices: a trained run's network, each block for itself, on its held-out samples."""
    from sesurgery.networks.export import INPUT, convert

    asked = timed(run.spec.latency, wanted)
    return Subject(
        name=run.folder.name,
        model=convert(run.network, run.spec.input.shape, run.spec.export),
        plan=run.plan,
        inside=_inside(run.spec.model),
        wanted=wanted,
        latency=_latency(PER_BLOCK, asked.batch, asked.threads, seconds),
        feeds={INPUT: data_of(run.spec).held_out.images[: asked.batch].numpy()},
        trained=True,
        together=False,
        lowering=lowering,
        run=run.folder,
        talk=talk or Silent(),
    )


def _latency(races: Latency, batch: int, threads: int | None, seconds: float | None) -> Latency:
    more = races.more_seconds if seconds is None else seconds
    return races.model_copy(update={"batch": batch, "threads": threads, "more_seconds": more})


def _inside(model: object) -> str:
    """A plan for a part of a network names its blocks within that part."""
    part = getattr(model, "submodule", "")
    return f"{part}." if part else ""
