"""A run as the pipeline would report it, with synthetic numbers whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fixtures.folding import folded

from sesurgery.reasons import Reason
from sesurgery.reports.model import (
    BatchParity,
    EngineSection,
    EpochRow,
    FileRow,
    LatencySection,
    NetworkSection,
    Provenance,
    RunReport,
    SiteRow,
    TrainingSection,
)
from sesurgery.reports.pages.study import to_html as study_to_html
from sesurgery.spec.parity import Tolerance
from sesurgery.studies.answer import Outcome, Timing, answer
from sesurgery.studies.cells import Cell
from sesurgery.verification.cost import BlockPrice, Prices, Seconds
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.drift import Drift, Repair, TapError
from sesurgery.verification.estimates import Floats, PairedTimes, Tax, estimate_tax, summarise
from sesurgery.verification.flips import FlippedSample, picture
from sesurgery.verification.latency import EngineTiming, LatencyReport
from sesurgery.verification.parity import ParityReport, compare
from sesurgery.verification.probes import ProbeParity
from sesurgery.verification.proportions import share
from sesurgery.verification.service import EngineService, Service, Streams


def timing(name: str, kept: Floats) -> EngineTiming:
    rounds = tuple(tuple(row) for row in kept.tolist())
    return EngineTiming(name, summarise(kept.ravel(), 1), rounds, tuple((1.6 * kept[:, 0]).tolist()))


def race(ratio: float, spread: float, seed: int, doubt: str | None = None, exported: float = 1.2) -> LatencyReport:
    generator = np.random.default_rng(seed)
    pace = 1 + 0.01 * np.sin(np.arange(60) / 7)[:, None]
    kept = 4.2e-3 * pace * generator.gamma(1 / spread**2, spread**2, (3, 60, 10))
    kept *= np.array([ratio, 1, exported])[:, None, None]

    def tax(ours: int, theirs: int) -> Tax:
        parts = zip(np.split(kept[ours], 12), np.split(kept[theirs], 12), strict=True)
        return estimate_tax([PairedTimes(*part, number % 2 == 0) for number, part in enumerate(parts)], 0.95)

    ours, theirs, before = map(timing, ("seresnet", "resnet", "as exported"), kept)
    costs = {"as_exported_tax": tax(2, 1), "lowering": tax(0, 2)}
    return LatencyReport(1, 60, 10, 0.5, 7.25, ours, theirs, tax(0, 1), doubt, 12, as_exported=before, **costs)


def parity(noise: float, seed: int, samples: int = 360) -> ParityReport:
    generator = np.random.default_rng(seed)
    labels = generator.integers(10, size=samples)
    reference = generator.normal(0, 1, (samples, 10))
    reference[np.arange(samples), labels] += generator.gamma(4, 1.2, samples)
    candidate = reference + generator.normal(0, noise, reference.shape) * generator.gamma(2, 0.5, (samples, 1))
    return compare(reference, candidate, labels, Tolerance(max_abs=0.1, min_agreement=0.99, max_top1_drop=0.01))


@pytest.fixture
def good_parity() -> ParityReport:
    return parity(1e-6, 1)


@pytest.fixture
def bad_parity() -> ParityReport:
    return parity(0.4, 2)


@pytest.fixture
def run() -> RunReport:
    sites = tuple(
        SiteRow(f"se/layer{stage}.{block}[0]", stage, 64 * 2 ** (stage - 1), 32 >> stage, 32 >> stage, "se",
                8 * 4 ** (stage - 1) * 64 + 68 * stage, 8 * 4 ** (stage - 1) * 64)
        for stage in (1, 2, 3, 4)
        for block in (0, 1)
    )  # fmt: skip
    epochs = tuple(
        EpochRow(epoch, 2.1 * 0.62**epoch + 0.04, 0.986 - 0.5 * 0.5**epoch, 0.05 * (1 + np.cos(np.pi * epoch / 10)))
        for epoch in range(1, 11)
    )
    return RunReport(
        title="se-resnet18 on digits",
        created="2025-03-01 12:00 UTC",
        command="sesurgery run specs/digits.yaml",
        network=NetworkSection("resnet18", (3, 32, 32), sites, 11_181_642, 11_270_000, 555_422_720, 555_510_000),
        training=TrainingSection("digits: 1437 samples to train on, 360 held out; seed 0.", epochs, 0.9855),
        engines=(
            EngineSection("onnxruntime", "fp32", "engines/digits.onnxruntime.fp32.ort", 1.24, {"fp32": 20},
                          (BatchParity(1, parity(1e-6, 1)), BatchParity(32, parity(1.2e-6, 1))), size_bytes=45_100_000),
            EngineSection("onnxruntime", "fp16", "engines/digits.onnxruntime.fp16.ort", 1.91, {"fp16": 20},
                          (BatchParity(1, parity(4e-3, 3)), BatchParity(32, parity(0.3, 4))), size_bytes=22_600_000,
                          notes=("the gate branch stays fp32",),
                          kept_fp32=(Reason("sum", "pool_1", "a sum over many values"),
                                     Reason("gate", "gate_1", "in the gate of squeeze 'pool_1'"),
                                     Reason("gate", "gate_2", "in the gate of squeeze 'pool_1'"))),
            EngineSection("tensorrt", "fp16", "engines/digits.tensorrt.fp16.plan", 31.0, {"fp16": 20, "fp32": 1},
                          not_verified="cannot run here: no CUDA driver"),
        ),
        latency=(
            LatencySection("onnxruntime fp32", "2 CPU threads, the run alone, no copies", race(1.098, 0.02, 1)),
            LatencySection("onnxruntime fp16", "2 CPU threads, the run alone, no copies",
                           race(1.001, 0.06, 2, "doubtful: the machine was busy (variation 6.0 %)")),
        ),
        provenance=Provenance(
            {"python": "3.11.2", "torch": "2.15.0", "onnxruntime": "1.31.0"},
            "Some CPU, 2 cores",
            {"spec": "ab" * 32, "plan": "cd" * 32},
            (FileRow("runs/digits/weights.safetensors", "12" * 32, "weights"),
             FileRow("export/digits.onnx", "34" * 32, "network")),
        ),
    )  # fmt: skip


@pytest.fixture
def whole(run: RunReport) -> RunReport:
    """That run with all that is measured where it is asked for: drift, flips, probes, prices, services, folding."""
    return dataclasses.replace(
        run,
        engines=(run.engines[0], _searched(run.engines[1], [site.key for site in run.network.sites]), run.engines[2]),
        latency=(dataclasses.replace(run.latency[0], services=_services()), run.latency[1]),
        prices=(_prices(run.network.sites),),
        folding=folded(-0.025),
    )


def _searched(engine: EngineSection, keys: list[str]) -> EngineSection:
    """An engine that falls short, looked into."""
    random = np.random.default_rng(5)
    errors = [TapError(key, key[3:-3], key, 1e-4 * 3**place, 4.0) for place, key in enumerate(keys)]
    lost = TapError("logits", "", None, float("inf"), 9.0, 3)
    png = picture(random.normal(size=(3, 40, 30)))
    flips = [FlippedSample(place, "three", "three", "eight", 0.9, 0.6, png) for place in range(12)]
    return dataclasses.replace(
        engine,
        probes=(
            ProbeParity("noise", 8, 1, 0.02, 1.0, 0, 0.1, share(8, 8)),
            ProbeParity("strong images", 8, 1, float("inf"), 0.5, 2, 0.1, share(4, 8)),
        ),
        flipped=(*flips, FlippedSample(99, "one", "one", None, 0.8, 0.0, png)),
        diagnosis=Diagnosis("precision", f"rounding to fp16 is over tolerance before {keys[5]}", keys[5]),
        drift=Drift((*errors, lost), 0.03, "all places at once, in a copy"),
        repairs=(
            Repair(f"{keys[5][3:-3]} in fp32", {"engines[1].keep_fp32": [keys[5][3:-3]]}, "batch 1: max_abs"),
            Repair("fp32", {"engines[1].precision": "fp32"}),
        ),
    )


def _prices(sites: tuple[SiteRow, ...]) -> Prices:
    def price(place: int) -> Seconds:
        value = 2e-4 * (place - 1)
        return Seconds(value, value - 3e-4, value + 3e-4)

    blocks = tuple(
        BlockPrice(site.key, site.key[3:-3], site.stage, site.channels, site.height, site.width, price(place),
                   site.params, site.macs, 1e-4, 6, 4096)
        for place, site in enumerate(sites)
    )  # fmt: skip
    return Prices(blocks, 20e-3, Seconds(4e-3, 3e-3, 5e-3), 1, 2, "onnxruntime fp32", trained=True, pairs=9)


def _services() -> tuple[EngineService, ...]:
    """Three engines in three fresh processes each."""
    random = np.random.default_rng(6)

    def once(pace: float) -> Service:
        runs = pace * random.gamma(400, 1 / 400, 200)
        streams = (Streams(1, 2, summarise(runs, 1), 1 / pace), Streams(2, 1, summarise(1.7 * runs, 1), 1.2 / pace))
        start = random.gamma(100, 1 / 100, 3)
        return Service(0.3 * start[0], 0.05 * start[1], 0.01 * start[2], 40_000_000, 180_000_000, streams)

    paces = {"seresnet": 4.2e-3, "resnet": 4e-3, "as exported": 5e-3}
    return tuple(EngineService(name, tuple(once(pace) for _ in range(3))) for name, pace in paces.items())


@pytest.fixture
def study_page() -> str:
    """The page of a study of three placements and the plain network, one trial of which failed."""
    random = np.random.default_rng(7)
    cells = [Cell({}, plain=True), *(Cell({"surgery[0].at": at}) for at in ("residual", "pre", "identity"))]
    outcomes = [
        Outcome(
            cell, seed, f"runs/{place}-{seed}", 0.8 + 0.02 * place + random.normal(0, 0.004), 1000, 10**6 * (9 + place),
            curve=tuple(0.8 - 0.5 * 0.6**epoch + 0.02 * place for epoch in range(8)),
        )
        for place, cell in enumerate(cells)
        for seed in range(3)
    ]  # fmt: skip
    timings = {cell.key: Timing(4e-3 + 2e-4 * place, 3.9e-3, 4.5e-3) for place, cell in enumerate(cells)}
    outcomes.append(Outcome(cells[1], 3, failed="the loss is not a number"))
    return study_to_html(answer("placements", {"surgery[0].at": ["residual", "pre"]}, (0, 1, 2, 3), outcomes, timings))
