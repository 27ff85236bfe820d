"""The ONNX file an engine is built from: one of ours with its manifest, or any other without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sesurgery.workspace.manifest_files import manifest_path, require_intact, run_folder
from sesurgery.workspace.manifests import OnnxManifest


@dataclass(frozen=True)
class Origin:
    """An ONNX file, and its manifest where it has one."""

    path: Path
    manifest: OnnxManifest | None

    @classmethod
    def read(cls, path: Path) -> Origin:
        """Raises SE401 if the file is not the one that its manifest describes."""
        return cls(path, require_intact(path, OnnxManifest) if manifest_path(path).is_file() else None)

    @property
    def run(self) -> Path | None:
        """The folder of the run that it came from; raises SE408 as `run_folder` does."""
        return None if self.manifest is None else run_folder(self.path, self.manifest)

    @property
    def plain(self) -> bool:
        """Whether it holds the network without blocks."""
        return self.manifest is not None and self.manifest.details.plain
