"""Changes of the spec that could repair an engine, and what an engine built with each of them gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesurgery.backends.base import Runner
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.checkpoint import Run
from sesurgery.pipeline.build_engine.building import build
from sesurgery.pipeline.build_engine.lowered import passes_for
from sesurgery.pipeline.build_engine.request import BuildRequest
from sesurgery.pipeline.specs import backend_of, engine, engine_of
from sesurgery.talk import Talk
from sesurgery.temporaries import folder_for
from sesurgery.verification.diagnosis import Diagnosis
from sesurgery.verification.drift import Repair
from sesurgery.workspace import EngineManifest
from sesurgery.workspace.folders import Workspace

METHODS = ("percentile", "entropy", "minmax")
MORE_SAMPLES = 4
NARROW = ("fp16", "bf16", "int8")
Judge = Callable[[Runner], str | None]
"""What an engine falls short of, or None."""


@dataclass(frozen=True)
class Broken:
    """An engine of a run that falls short, and what was found to be wrong with it."""

    run: Run
    engine: Path
    manifest: EngineManifest
    found: Diagnosis
    modules: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where the engine stands in the spec; one that the spec does not have is called so."""
        asked = engine_of(self.manifest)
        for number, entry in enumerate(self.run.spec.engines):
            if (entry.backend.name, entry.precision, entry.name) == (asked.backend.name, asked.precision, asked.name):
                return f"engines[{number}]"
        return "engines[-]"


def repairs(broken: Broken, judge: Judge, talk: Talk) -> tuple[Repair, ...]:
    """What was tried, up to the first that worked; engines are built in a temporary folder."""
    tried: list[Repair] = []
    for wish in _wishes(broken):
        talk.say(f"trying a repair: {wish.what}")
        tried.append(_try_repair(broken, wish, judge, talk))
        if tried[-1].worked:
            break
    return tuple(tried)


@dataclass(frozen=True)
class _Wish:
    """A change: of the engine's entry, or of the passes before it."""

    what: str
    entry: Mapping[str, Any]
    lowering: tuple[str, ...] | None = None


def _wishes(broken: Broken) -> Iterator[_Wish]:
    """The small ones first: one block in fp32, another calibration, without a pass; a wider precision last."""
    precision, kind = broken.manifest.details.precision, broken.found.kind
    if kind in ("labels", "preprocessing", "weights", "batch", "stale"):
        # The file or its use is wrong: no other build of the same file helps.
        return
    if precision == "int8":
        asked = engine_of(broken.manifest).calibration
        if asked.file is not None:
            own = {key: value for key, value in _given(asked).items() if key != "file"}
            yield _Wish("calibration on the run's training data", {"calibration": own})
        for method in METHODS:
            if method != asked.method:
                yield _Wish(f"calibration by {method}", {"calibration": {**_given(asked), "method": method}})
        more = {**_given(asked), "samples": MORE_SAMPLES * asked.samples}
        yield _Wish(f"calibration on {more['samples']} samples", {"calibration": more})
    if precision in NARROW:
        for module in _around(broken):
            yield _Wish(f"{module} in fp32", {"keep_fp32": [*engine_of(broken.manifest).keep_fp32, module]})
    passes = passes_for(backend_of(broken.manifest), engine_of(broken.manifest), broken.manifest.details.lowering)
    for name in passes:
        rest = tuple(other for other in passes if other != name)
        yield _Wish(f"leaving out the pass {name}", {}, rest)
    if precision in NARROW:
        yield _Wish("fp32", {"precision": "fp32"})


def _given(asked: Any) -> dict[str, Any]:
    return {key: getattr(asked, key) for key in sorted(asked.model_fields_set)}


def _around(broken: Broken) -> Iterator[str]:
    """The block, then the unit that it is in, then the stage that the unit is in."""
    module = broken.modules.get(broken.found.site or "", broken.found.site or "")
    while module:
        yield module
        module = module.rpartition(".")[0]


def _try_repair(broken: Broken, wish: _Wish, judge: Judge, talk: Talk) -> Repair:
    details = broken.manifest.details
    asked = engine_of(broken.manifest).model_dump(mode="json", by_alias=True)
    wanted = engine({**asked, **wish.entry})
    lowering = details.lowering if wish.lowering is None else wish.lowering
    change = {f"{broken.place}.{key}": value for key, value in wish.entry.items()}
    if wish.lowering is not None:
        change["export.lowering"] = list(wish.lowering)
    with folder_for("repair") as folder:
        onnx = broken.manifest.locate(broken.engine, details.onnx)
        # The engine itself is compared, which a proof of its passes adds nothing to.
        request = BuildRequest(onnx, wanted, Workspace(Path(folder)), lowering=lowering, proved=False)
        try:
            built = build(request)
            with request.backend.load(built.path) as runner:
                return Repair(wish.what, change, judge(runner))
        except SesurgeryError as error:
            return Repair(wish.what, change, error.diagnostics[0].message)
