"""Typed manifests, one for each kind of artefact: where a file came from, and the details of its kind.

Every path in a manifest is relative to the folder that the artefact lies in, so that a workspace can be moved or copied
whole. Unknown keys are kept: a later version may have written them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, TypeAdapter

from sesurgery import trust
from sesurgery.artifacts import digest_text
from sesurgery.workspace.details import (
    Details,
    EngineDetails,
    OnnxDetails,
    PackageDetails,
    Parent,
    Place,
    RunDetails,
    StudyDetails,
)

if TYPE_CHECKING:
    from sesurgery.spec import Spec

VERSION: Literal[2] = 2
"""1: paths as they were named, from the folder that the command ran in. 2: paths from the artefact's folder."""


class BaseManifest(BaseModel):
    """Where an artefact came from: the command that makes it again, digests of it and its parents, versions, device.

    `beside` holds files that belong to the artefact and lie in its folder (weights kept outside).
    `seal` proves that this user made it: see `sesurgery.trust`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    schema_version: Literal[1, 2] = 1
    kind: str
    name: str
    file: Place
    sha256: str
    command: str
    created: str
    spec_digest: str | None = None
    plan_digest: str | None = None
    parents: tuple[Parent, ...] = ()
    beside: tuple[Parent, ...] = ()
    versions: dict[str, str]
    device: str
    details: Details
    seal: str | None = None

    @property
    def made_here(self) -> bool:
        """Whether this user made it on this machine, proved by the seal."""
        return trust.holds(self.sealed_text(), self.seal)

    def sealed_text(self) -> str:
        """The manifest's content without the seal: the same text before writing and after reading."""
        # Via JSON, where some values (infinity) have another form.
        return json.dumps(json.loads(self.model_dump_json(exclude={"seal"}, exclude_unset=True)), sort_keys=True)

    def parent_files(self, artifact: Path) -> dict[Path, str]:
        """The files that `artifact`, whose manifest this is, was made from, each with its digest."""
        return {self.locate(artifact, parent.path): parent.sha256 for parent in self.parents}

    def locate(self, artifact: Path, path: str) -> Path:
        """A path in the manifest of `artifact`, resolved from the current folder."""
        if self.schema_version == 1:
            return Path(path)
        # Not resolved: a folder of the workspace may be a link to another disk, whose parent is elsewhere.
        return Path(os.path.normpath(artifact.parent / path))


class RunManifest(BaseManifest):
    """The manifest of a run, which is that of its weights."""

    kind: Literal["run"] = "run"
    details: RunDetails

    def is_of(self, spec: Spec) -> bool:
        """Whether the run was made of this spec: by its digest, or letter by letter.

        Earlier versions had every default in the digest, those of their own options alone (decision 0018).
        """
        return self.spec_digest == spec.digest or digest_text(spec.text()) in {file.sha256 for file in self.parents}

    def spec_file(self, artifact: Path) -> Path | None:
        """The file of the spec that the run was made from, wherever it is now; None if it came from no file."""
        return None if self.details.spec is None else self.locate(artifact, self.details.spec)


class OnnxManifest(BaseManifest):
    """The manifest of an ONNX file."""

    kind: Literal["onnx"] = "onnx"
    details: OnnxDetails

    def run_named(self, artifact: Path) -> Path | None:
        """The run it names; `workspace.run_folder` checks whether that folder may be used."""
        return self.locate(artifact, self.details.run) if self.details.run else None


class EngineManifest(BaseManifest):
    """The manifest of an engine."""

    kind: Literal["engine"] = "engine"
    details: EngineDetails

    def run_named(self, artifact: Path) -> Path | None:
        """The run it names, as for an ONNX file."""
        return self.locate(artifact, self.details.run) if self.details.run else None

    def onnx_file(self, artifact: Path) -> Path:
        """The ONNX file of the engine's network, before lowering."""
        return self.locate(artifact, self.details.onnx)


class PackageManifest(BaseManifest):
    """The manifest of an engine packaged for a server. Version 1 called it an engine."""

    kind: Literal["package", "engine"] = "package"
    details: PackageDetails


class StudyManifest(BaseManifest):
    """The manifest of a study, which is that of its answer."""

    kind: Literal["study"] = "study"
    details: StudyDetails


class ReportManifest(BaseManifest):
    """The manifest of a report."""

    kind: Literal["report"] = "report"
    details: Details = Details()


def _kind(given: object) -> str | None:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    details = given.get("details") if isinstance(given, dict) else None
    # Version 1 called a package an engine.
    return "package" if kind == "engine" and isinstance(details, dict) and "server" in details else kind


Manifest = Annotated[
    Annotated[RunManifest, Tag("run")]
    | Annotated[OnnxManifest, Tag("onnx")]
    | Annotated[EngineManifest, Tag("engine")]
    | Annotated[PackageManifest, Tag("package")]
    | Annotated[StudyManifest, Tag("study")]
    | Annotated[ReportManifest, Tag("report")],
    Discriminator(_kind),
]
ADAPTER: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def relative(path: Path | str, artifact: Path) -> str:
    """A path as stored in a manifest of `artifact`."""
    return Path(os.path.relpath(path, artifact.parent)).as_posix()
