"""The folders of artefacts; the newest artefact is the default if none is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sesurgery.artifacts import busy
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.spec import Spec
from sesurgery.workspace.manifest_files import manifest_path, read_manifest
from sesurgery.workspace.manifests import EngineManifest, RunManifest
from sesurgery.workspace.run_files import WEIGHTS


@dataclass(frozen=True)
class Workspace:
    """A folder with runs/, export/ and engines/ in it; the current folder unless told otherwise."""

    root: Path = Path()

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def exports(self) -> Path:
        return self.root / "export"

    @property
    def engines(self) -> Path:
        return self.root / "engines"

    def newest_run(self) -> Path:
        """The run folder that was written last; raises SE402 if there is none."""
        found = _newest(self.runs.glob(f"*/{WEIGHTS}"))
        if found is None:
            raise fail("SE402", f"there is no run in {self.runs}/ yet", "make one with `sesurgery apply SPEC`")
        return found.parent

    def newest_engine(self, runs_here: Callable[[str], bool]) -> Path:
        """The engine with blocks that was built last, one that can run here if there is any; raises SE402 for none.

        `runs_here` says of a backend's name whether its engines can run on this machine.
        """
        built = [(path, manifest) for path, manifest in self.built() if not is_baseline(manifest)]
        runs = {name: runs_here(name) for name in {manifest.details.backend for _, manifest in built}}
        runnable = [path for path, manifest in built if runs[manifest.details.backend]]
        found = _newest(runnable or [path for path, _ in built])
        if found is None:
            text = f"there is no engine in {self.engines}/ yet"
            raise fail("SE402", text, "build one with `sesurgery build-engine`")
        return found

    def built(self, run: Path | None = None) -> list[tuple[Path, EngineManifest]]:
        """All engines with their manifests, or those of one run; broken manifests are skipped."""
        found = []
        for path in sorted(self.engines.glob("*.manifest.json")):
            engine = path.with_name(path.name.removesuffix(".manifest.json"))
            try:
                manifest = read_manifest(engine, EngineManifest)
            except SesurgeryError:
                continue
            of = manifest.run_named(engine)
            if engine.is_file() and (run is None or (of is not None and of.resolve() == run.resolve())):
                found.append((engine, manifest))
        return found

    def fresh_run(self, spec: Spec) -> Path:
        """A folder for a new run of a spec: no training and no other spec's run is ever written over."""
        number = 1
        while True:
            folder = self.runs / (spec.name if number == 1 else f"{spec.name}-{number}")
            if not (folder / WEIGHTS).exists():
                return folder
            try:
                manifest = read_manifest(folder / WEIGHTS, RunManifest)
            except SesurgeryError:
                number += 1
                continue
            untrained = manifest.details.top1 is None and not (folder / "train").exists()
            if manifest.is_of(spec) and untrained and not busy(folder):
                return folder
            number += 1


def is_baseline(manifest: EngineManifest) -> bool:
    """Whether an engine is a baseline: of the plain network, or as exported."""
    return manifest.details.plain or manifest.details.as_exported


def _newest(artifacts: Iterable[Path]) -> Path | None:
    with_manifest = [path for path in artifacts if manifest_path(path).is_file()]
    return max(with_manifest, key=lambda path: manifest_path(path).stat().st_mtime_ns, default=None)
