"""Networks of Ultralytics by the yaml families that it brings; no other file is read.

A changed network is still Ultralytics' own: its trainers, predictors and exporters take it. Called as `network(images)`
it gives one tensor, which engines need; called as Ultralytics calls it (a batch as a dictionary, or with keywords) its
own output. Ultralytics is under the AGPL: it is imported where a spec asks for it, and is no dependency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from sesurgery.diagnostics import fail, first_line, suggest
from sesurgery.muting import muted
from sesurgery.spec import NamesModel
from sesurgery.spec.model import UltralyticsModel
from sesurgery.surgeons.fx.inputs import tensors

_KINDS = {
    "Detect": "DetectionModel",
    "v10Detect": "DetectionModel",
    "Segment": "SegmentationModel",
    "Segment26": "SegmentationModel",
    "Pose": "PoseModel",
    "Pose26": "PoseModel",
    "OBB": "OBBModel",
    "OBB26": "OBBModel",
    "Classify": "ClassificationModel",
    "RTDETRDecoder": "RTDETRDetectionModel",
}
"""The class of a network by the head that its family ends with; heads that read text beside the image are left out."""
_SCALE = re.compile(r"(\d+)[nsmlx](?=-|$)")


def build_ultralytics(model: UltralyticsModel, spec: NamesModel) -> nn.Module:
    """The network of a family, with fresh values and in training mode.

    Raises SE301 for a family that Ultralytics does not have, SE302 if it cannot be built.
    """
    tasks, files = _ultralytics(spec)
    span = spec.span("model", "name")
    name = model.name if model.name.endswith(".yaml") else f"{model.name}.yaml"
    file = files.get(name) or files.get(_unscaled(name))
    if file is None:
        text = f"ultralytics has no family {model.name!r}"
        raise fail("SE301", text, suggest(name, files), span=span)
    try:
        # Not by Ultralytics' own search: a file of that name in the current folder would come first, and may hold code.
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        # Without a scale of its own a family has its first.
        scale = tasks.guess_model_scale(name) or next(iter(config.get("scales", [""])))
        config |= {"scale": scale, "yaml_file": name}
        head = str(config["head"][-1][-2])
        if head not in _KINDS:
            text = f"{model.name!r} ends with {head}, which needs more than an image"
            raise fail("SE302", text, "name a family that detects, segments, poses or classifies", span=span)
        # It tells of its layers on stdout, which is for data.
        with muted("ultralytics"):
            network: nn.Module = getattr(tasks, _KINDS[head])(config, verbose=False, **model.kwargs)
    except (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
        text = f"{model.name!r} cannot be built: {first_line(error)}"
        where = ("model", "kwargs") if model.kwargs else ("model", "name")
        raise fail("SE302", text, "classes are 'nc', channels 'ch'", span=spec.span(*where)) from error
    network.register_forward_hook(_one_tensor, with_kwargs=True)
    return network.train()


def _one_tensor(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    """The tensor that an image alone asks for; None leaves the output as it is.

    Of a classifier these are the logits, as in training. What a detector gives in training is for its loss.
    """
    images = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
    if network.training or not images or not isinstance(output, tuple):
        return None
    found = [*tensors(output)]
    # Probabilities come first, the logits last.
    return found[-1] if len(found) == 2 and found[0].shape == found[1].shape else found[0]


def _ultralytics(spec: NamesModel) -> tuple[Any, dict[str, Path]]:
    try:
        import ultralytics
        from ultralytics.nn import tasks
    except ImportError as error:
        text = f"'source: ultralytics' needs ultralytics: {first_line(error)}"
        hint = "pip install ultralytics, whose license is the AGPL"
        raise fail("SE302", text, hint, span=spec.span("model", "source")) from error
    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    return tasks, {path.name: path for path in sorted(folder.rglob("*.yaml"))}


def _unscaled(name: str) -> str:
    """The file of a family: `yolov8n-seg.yaml` is `yolov8-seg.yaml` at the scale n."""
    return _SCALE.sub(r"\1", name.removesuffix(".yaml"), count=1) + ".yaml"
