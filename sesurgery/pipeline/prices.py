"""What each block of a plan costs on a backend: engines with and without it are built and raced.

`bench --per-block` asks it of a trained run, a race for each block. `plan --price` asks it before any training: latency
does not depend on the weights. There, blocks that are alike are left out together, which takes fewer engines and tells
the price of one with less error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from sesurgery.accounting import Cost
from sesurgery.backends.base import Array, Backend, BuildsFromOnnx, TimesLayers
from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint, run_files
from sesurgery.networks.block_costs import site_costs
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.scopes import scope_of
from sesurgery.onnxgraph.traffic import traffic
from sesurgery.onnxgraph.without import without
from sesurgery.pipeline.build_request import BuildRequest
from sesurgery.pipeline.building import build
from sesurgery.pipeline.contestants import engine_file
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.inspect import draw
from sesurgery.pipeline.plan import NetworkPlan, plan
from sesurgery.pipeline.specs import catalogs, engine_of
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.tracing import folder_for
from sesurgery.pipeline.verify import run_of
from sesurgery.pipeline.workspace import Workspace
from sesurgery.planner import Plan, Site
from sesurgery.reports.prices import labels
from sesurgery.spec.engines import Engine
from sesurgery.spec.latency import Latency
from sesurgery.verification import cost
from sesurgery.verification.cost import PRICES, BlockPrice, EnginePrices, Prices, Seconds
from sesurgery.verification.fresh_process import EngineFile, race
from sesurgery.workspace import OnnxDetails, OnnxManifest, describe, relative, require_intact
from sesurgery.workspace.measurements import Of

QUICK = Latency(rounds=24, repeats=5, placements=8, half_width=None, warmup_seconds=0.2)
"""The races of a plan's prices: a few seconds each."""
PROFILED = 20


@dataclass(frozen=True)
class Subject:
    """A network to price: its file with all blocks, where they are, and how its engines are built and raced."""

    name: str
    model: onnx.ModelProto
    plan: Plan
    inside: str
    wanted: Engine
    latency: Latency
    feeds: Mapping[str, Array]
    trained: bool
    together: bool
    """Whether blocks that are alike are left out together."""
    alone: bool = False
    """Whether blocks are put alone into the plain network too."""
    lowering: tuple[str, ...] | None = None
    run: Path | None = None
    talk: Talk = field(default_factory=Silent)

    def module(self, site: Site) -> str:
        return f"{self.inside}{site.module}"

    @property
    def groups(self) -> list[list[tuple[Site, Cost]]]:
        """The blocks that are left out at once, with their costs."""
        priced = list(zip(self.plan.sites, site_costs(self.plan), strict=True))
        if not self.together:
            return [[each] for each in priced]
        alike: dict[object, list[tuple[Site, Cost]]] = {}
        for site, spent in priced:
            alike.setdefault((repr(site.block), site.channels, site.height, site.width), []).append((site, spent))
        return list(alike.values())


def price_plan(planned: NetworkPlan, wanted: Engine, *, batch: int = 1, talk: Talk | None = None) -> Prices:
    """The price list of a plan, from engines with untrained weights.

    Raises SE302 where the network is a file, SE402 where the plan has no block, and what building raises.
    """
    import torch

    from sesurgery.networks.export import INPUT, convert

    if planned.network.module is None:
        text = "a plan for an ONNX file has no prices: `plan --price` exports the changed network of torch"
        raise fail("SE302", text, "build engines of the file before and after `apply`, and race them")
    with torch.random.fork_rng(devices=[]):
        changed = planned.network.apply(planned.plan).module
    assert changed is not None
    model = convert(changed.eval(), planned.spec.input.shape, planned.spec.export)
    images = np.random.default_rng(0).normal(size=(batch, *planned.spec.input.shape)).astype(np.float32)
    latency = QUICK.model_copy(update={"batch": batch, "threads": planned.spec.latency.threads})
    subject = Subject(
        name=planned.spec.name,
        model=model,
        plan=planned.plan,
        inside=_inside(planned.spec.model),
        wanted=wanted,
        latency=latency,
        feeds={INPUT: images},
        trained=False,
        together=True,
        lowering=planned.spec.export.lowering,
        talk=talk or Silent(),
    )
    return prices(subject)


@dataclass(frozen=True)
class PriceResult:
    """An engine's price list, and the picture of its network coloured by it."""

    prices: Prices
    picture: Path


def price_engine(engine: Path, *, foreign: bool = False, talk: Talk | None = None) -> PriceResult:
    """The price list of a run's engine; it is kept beside the run. Raises as `bench` does."""
    from sesurgery.networks.export import INPUT, convert

    manifest, folder = run_of(engine, foreign=foreign)
    run = checkpoint.read(folder, catalogs())
    weights = require_intact(folder / run_files.WEIGHTS).sha256
    subject = Subject(
        name=folder.name,
        model=convert(run.network, run.spec.input.shape, run.spec.export),
        plan=run.plan,
        inside=_inside(run.spec.model),
        wanted=engine_of(manifest),
        latency=run.spec.latency,
        feeds={INPUT: data_of(run.spec).held_out.images[: run.spec.latency.batch].numpy()},
        trained=True,
        together=False,
        alone=True,
        lowering=manifest.details.lowering,
        run=folder,
        talk=talk or Silent(),
    )
    found = prices(subject)
    PRICES.write(folder, engine.name, EnginePrices(Of(manifest.sha256, weights), found))
    picture = folder / f"{engine.name}.prices.svg"
    return PriceResult(found, draw(plan(run.spec), picture, prices=labels(found), force=True))


def prices(subject: Subject) -> Prices:
    """The price list: one race for all blocks together, and one for each group of blocks that are left out."""
    backend: Backend = subject.wanted.backend.options
    if not subject.plan.sites:
        raise fail("SE402", f"{subject.name} has no block of ours", "give a spec that inserts blocks")
    if not isinstance(backend, BuildsFromOnnx):
        text = f"{subject.wanted.backend.name} builds from a network of torch; blocks are left out of ONNX files"
        raise fail("SE603", text, "take --backend onnxruntime or openvino")
    threads = subject.latency.threads or len(os.sched_getaffinity(0))
    everything = [subject.module(site) for site in subject.plan.sites]
    with folder_for("prices") as folder:
        builder = _Builder(subject, Path(folder), threads)
        whole = builder.build("whole", ())
        plain = builder.build("plain", everything)
        total_report = race([whole.file, plain.file], subject.feeds, subject.latency, subject.talk.progress)
        layers = _layers(backend, whole, subject, threads)
        own = {} if layers is None else _attributed(layers, whole.source, subject)
        blocks: list[BlockPrice] = []
        for number, group in enumerate(subject.groups):
            modules = [subject.module(site) for site, _ in group]
            subject.talk.say(f"pricing {', '.join(site.key for site, _ in group)}")
            rest = builder.build(f"without-{number}", modules)
            report = race([whole.file, rest.file], subject.feeds, subject.latency, subject.talk.progress)
            fewer = _layers(backend, rest, subject, threads)
            kernels = None if layers is None or fewer is None else len(layers) - len(fewer)
            moved = traffic(whole.source, subject.latency.batch) - traffic(rest.source, subject.latency.batch)
            saved, spent_alone = cost.difference(report), None
            if subject.alone:
                only = builder.build(f"only-{number}", [each for each in everything if each not in modules])
                beside = race([only.file, plain.file], subject.feeds, subject.latency, subject.talk.progress)
                spent_alone = cost.difference(beside)
            blocks += [
                _block(site, spent, (saved, spent_alone), len(group), own.get(site.key), kernels, moved, subject)
                for site, spent in group
            ]
    order = {site.key: place for place, site in enumerate(subject.plan.sites)}
    return Prices(
        blocks=tuple(sorted(blocks, key=lambda block: order[block.key])),
        whole=total_report.candidate.stats.median_seconds,
        total=cost.difference(total_report),
        batch=subject.latency.batch,
        threads=threads,
        engine=f"{subject.wanted.backend.name} {subject.wanted.precision}",
        trained=subject.trained,
    )


def _block(
    site: Site,
    spent: Cost,
    times: tuple[Seconds, Seconds | None],
    alike: int,
    profile: float | None,
    kernels: int | None,
    moved: int,
    subject: Subject,
) -> BlockPrice:
    saved, alone = times
    time = saved if alone is None else saved.mean(alone)
    return BlockPrice(
        key=site.key,
        module=subject.module(site),
        stage=site.stage,
        channels=site.channels,
        height=site.height,
        width=site.width,
        time=time.over(alike),
        params=spent.params,
        macs=spent.macs,
        profile=profile,
        kernels=None if kernels is None else round(kernels / alike),
        bytes=moved // alike,
        alike=alike,
        left_out=saved.over(alike),
        alone=None if alone is None else alone.over(alike),
    )


@dataclass(frozen=True)
class _Built:
    """An engine in the race, and the file that it was built of."""

    file: EngineFile
    source: onnx.ModelProto


@dataclass(frozen=True)
class _Builder:
    """Builds engines of a network without some of its modules, in a folder that goes again."""

    subject: Subject
    folder: Path
    threads: int

    def build(self, name: str, modules: Sequence[str]) -> _Built:
        subject = self.subject
        file = self.folder / f"{name}.onnx"
        onnx_io.save(without(subject.model, modules), file)
        if subject.wanted.precision != "fp32" and subject.run is not None:
            # Its ranges are found on the run's training data.
            details = OnnxDetails(run=relative(subject.run.resolve(), file.resolve()), precision="fp32")
            describe(file, OnnxManifest, name, "sesurgery bench --per-block", details=details)
        built = build(BuildRequest(file, subject.wanted, Workspace(self.folder), lowering=subject.lowering))
        parents = [path for path in built.manifest.parent_files(built.path) if path.suffix == ".onnx"]
        return _Built(
            engine_file(name, built.path, built.manifest, self.threads), onnx_io.load(parents[0] if parents else file)
        )


def _layers(backend: Backend, built: _Built, subject: Subject, threads: int) -> Mapping[str, float] | None:
    """What the layers of an engine take by its own account, None of a backend that gives none."""
    if not isinstance(backend, TimesLayers):
        return None
    with built.file.load() as runner:
        names = [(info.name, info.dtype) for info in runner.inputs]
    (images,) = subject.feeds.values()
    feeds = {name: images.astype(dtype, copy=False) for name, dtype in names}
    return backend.layers(Path(built.file.engine), feeds, PROFILED, threads)


def _attributed(layers: Mapping[str, float], source: onnx.ModelProto, subject: Subject) -> dict[str, float]:
    """The profile's seconds by block: a layer is known by the node or the value that its name begins with."""
    modules = {subject.module(site): site.key for site in subject.plan.sites}
    known: dict[str, str] = {}
    for node in Dataflow(source).nodes:
        scope = scope_of(node) or ""
        key = next((key for module, key in modules.items() if scope == module or scope.startswith(f"{module}.")), "")
        known.update(dict.fromkeys((node.name, *node.output), key))
    found = dict.fromkeys(modules.values(), 0.0)
    for name, seconds in layers.items():
        stem = name.rpartition("/")[2] if name not in known else name
        owner = max((word for word in known if word and _begins(stem, word)), key=len, default=None)
        if owner is not None and known[owner]:
            found[known[owner]] += seconds
    return found


def _begins(name: str, word: str) -> bool:
    return name == word or name.startswith((f"{word}_", f"{word}/"))


def _inside(model: object) -> str:
    """A plan for a part of a network names its blocks within that part."""
    part = getattr(model, "submodule", "")
    return f"{part}." if part else ""
