"""Everything about the files we write: folders, typed manifests, measurements, and whether a file is up to date."""

from sesurgery.workspace.details import EngineDetails, OnnxDetails, PackageDetails, RunDetails, StudyDetails
from sesurgery.workspace.manifest_files import (
    Provenance,
    belonging,
    describe,
    is_engine,
    manifest_path,
    place,
    read_manifest,
    require_intact,
    require_trusted,
    run_folder,
    write_manifest,
)
from sesurgery.workspace.manifests import (
    BaseManifest,
    EngineManifest,
    Manifest,
    OnnxManifest,
    PackageManifest,
    RunManifest,
    StudyManifest,
    relative,
)

__all__ = [
    "BaseManifest",
    "EngineDetails",
    "EngineManifest",
    "Manifest",
    "OnnxDetails",
    "OnnxManifest",
    "PackageDetails",
    "PackageManifest",
    "Provenance",
    "RunDetails",
    "RunManifest",
    "StudyDetails",
    "StudyManifest",
    "belonging",
    "describe",
    "is_engine",
    "manifest_path",
    "place",
    "read_manifest",
    "relative",
    "require_intact",
    "require_trusted",
    "run_folder",
    "write_manifest",
]
