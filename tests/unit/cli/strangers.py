"""What somebody else can do to a folder: change any file of it, and write down the digests that then fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sesurgery.artifacts import digest_file, digest_text
from sesurgery.workspace import manifest_path

WEIGHTS = "weights.safetensors"


def manifest_of(artifact: Path) -> dict[str, Any]:
    return json.loads(manifest_path(artifact).read_text())


def rewrite(artifact: Path, **changes: Any) -> None:
    """Another manifest, as somebody writes it who has all but the user's key: the old seal stays."""
    manifest = manifest_of(artifact)
    details = {**manifest["details"], **changes.pop("details", {})}
    manifest |= {"sha256": digest_file(artifact), "details": details, **changes}
    manifest_path(artifact).write_text(json.dumps(manifest))


def of_somebody_else(artifact: Path) -> None:
    """The same artefact, made by another user: sealed with a key that is not ours."""
    rewrite(artifact, seal="0" * 64)


def replan(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another plan in a run, and its digest in the manifest."""
    plan = json.loads((run / "plan.json").read_text())
    change(plan)
    text = json.dumps(plan)
    (run / "plan.json").write_text(text)
    rewrite(run / WEIGHTS, plan_digest=digest_text(text))
