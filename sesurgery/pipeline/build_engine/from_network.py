"""Engines built from the torch network of the run behind an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping

from sesurgery.backends.base import BuildReport, BuildsFromNetwork
from sesurgery.diagnostics import fail
from sesurgery.lowering.precision.kept_fp32 import summary
from sesurgery.networks import checkpoint
from sesurgery.networks.plain import plain_network
from sesurgery.pipeline.build_engine.request import BuildRequest
from sesurgery.pipeline.specs import catalogs
from sesurgery.workspace.origin import Origin


def build_from_network(
    request: BuildRequest, backend: BuildsFromNetwork, given: Origin
) -> tuple[BuildReport, Mapping[str, object]]:
    """Build from the network that an ONNX file was exported from; the report, and details for the manifest.

    Raises SE603 if the file came from no run, and SE401 if the run has been trained again since.
    """
    from sesurgery.lowering.fx import lower

    name, options, talk = request.wanted.backend.name, request.options, request.talk
    onnx, origin, folder = given.path, given.manifest, given.run
    if origin is None or folder is None:
        text = f"{name} builds from a trained network, and {onnx} is only a file"
        hint = "name a run, or an ONNX file that was exported from one; or take another backend"
        raise fail("SE603", text, hint)
    run = checkpoint.read(folder, catalogs())
    if all(parent.sha256 != run.manifest.sha256 for parent in origin.parents):
        text = f"{onnx} was not exported from the weights that {folder} holds now"
        raise fail("SE401", text, f"export it again: `sesurgery export {folder}`")
    network = plain_network(run) if given.plain else run.network
    batch = (options.batch.minimum, options.batch.maximum)
    passes = request.backend.passes if request.lowering is None else request.lowering
    lowered = lower(network, run.spec.input.shape, batch, passes, verify=request.proved)
    changed = [edit for edit in lowered.edits if edit.changed]
    if changed:
        talk.say(f"lowered for {name}: {len(changed)} edits")
    target = request.target
    report = backend.build_network(lowered.module, run.spec.input.shape, target, options, talk.progress)
    if report.kept_fp32:
        talk.say(f"kept in fp32: {summary(report.kept_fp32)}; each is named in {target.name}.manifest.json")
    return report, {
        "lowered": tuple(edit.reason for edit in changed),
        "not_lowered": tuple(edit.reason for edit in lowered.edits if not edit.changed),
        "kept_fp32": tuple(report.kept_fp32),
    }
