"""The networks of the zoo by source: their names, how a spec names each, and the sizes to try."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial

import zoo_libraries

SIZES = (64, 96, 128, 160, 192, 224, 256, 299, 331, 384, 448)
SMALLER = {"timm:samvit_base_patch16": 256}
TRANSFORMERS = ("vit_", "swin_")
YOLO = (
    *("yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-ghost", "yolov8n-p2", "yolov8n-seg", "yolov8n-pose"),
    *("yolov8n-obb", "yolov8n-cls", "yolov8-rtdetr", "yolov9t", "yolov10n", "yolo11n", "yolo11n-seg", "yolo11n-cls"),
    *("yolo12n", "yolo12n-cls", "yolo26n", "yolo26n-cls", "rtdetr-resnet50"),
)
DETECTORS = (
    *("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"),
    "fcos_resnet50_fpn",
)


def torchvision_models() -> list[str]:
    """Torchvision's classification models but its pure transformers."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision:{name}" for name in names if not name.startswith(TRANSFORMERS)]


def timm_models(per_module: int = 2) -> list[str]:
    """The smallest few models of every module of timm, by parameters, that hold a 2-D convolution."""
    import timm
    from torch import nn

    chosen = []
    for module in timm.list_modules():
        # timm's own test networks are tiny, and nobody uses them.
        names = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        sized = []
        for name in names:
            model = _built("timm", name, "meta")
            if model is None and name in names[:3]:
                model = _built("timm", name, "cpu")
            if model is not None and any(isinstance(part, nn.Conv2d) for part in model.modules()):
                sized.append((sum(part.numel() for part in model.parameters()), name))
        chosen += [f"timm:{name}" for _, name in sorted(sized)[:per_module]]
    return chosen


def huggingface_models() -> list[str]:
    """Image classifiers and backbones of transformers, by their default configs, with two 2-D convolutions or more."""
    from torch import nn
    from transformers.models.auto import modeling_auto as known

    chosen = []
    for names in (known.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, known.MODEL_FOR_BACKBONE_MAPPING_NAMES):
        for value in names.values():
            for name in value if isinstance(value, tuple) else (value,):
                # A transformer's patches are one convolution. Networks of timm are examined as timm's.
                model = None if name.startswith("Timm") else _built("huggingface", name, "meta")
                if model is not None and sum(isinstance(part, nn.Conv2d) for part in model.modules()) > 1:
                    chosen.append(f"huggingface:{name}")
    return list(dict.fromkeys(chosen))


def ultralytics_models() -> list[str]:
    """The smallest network of the families and tasks of Ultralytics."""
    return [f"ultralytics:{name}.yaml" for name in YOLO]


def detectors() -> list[str]:
    """Detectors of torchvision, of which the backbone is operated on."""
    return [f"detectors:{name}" for name in DETECTORS]


def _built(source: str, name: str, device: str):
    """The network without values; None where it cannot be built so (some look at their values while being built)."""
    import timm
    import torch
    import torchvision

    def from_transformers(name: str):
        import transformers

        kind = getattr(transformers, name)
        return kind(kind.config_class())

    makers = {"timm": timm.create_model, "torchvision": torchvision.models.get_model, "huggingface": from_transformers}
    makers["detectors"] = partial(torchvision.models.get_model, weights=None, weights_backbone=None)
    makers |= {library: partial(zoo_libraries.build, library) for library in zoo_libraries.LIBRARIES}
    make = makers.get(source)
    if make is None:
        return None
    try:
        with torch.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(name)
    except Exception:  # what stands in the way is the model's affair, and said when it is examined
        return None


def by_size(models: list[str]) -> list[str]:
    """The same models, the smallest first, so that a run that is stopped has seen as many as possible."""
    sized = []
    for model_id in models:
        source, _, name = model_id.partition(":")
        model = _built(source, name, "meta")
        # One of unknown size is examined last.
        size = sum(part.numel() for part in model.parameters()) if model is not None else sys.maxsize
        sized.append((size, model_id))
    return [model_id for _, model_id in sorted(sized)]


def model_of(model_id: str) -> dict[str, object]:
    source, _, name = model_id.partition(":")
    if source in zoo_libraries.LIBRARIES:
        return zoo_libraries.model_of(source, name)
    if source == "detectors":
        return {"source": "torchvision", "name": name, "submodule": "backbone"}
    return {"source": source, "name": name, "kwargs": _kwargs(model_id)}


def sizes(model_id: str) -> tuple[int, ...]:
    """The network's own size alone where it is fixed; otherwise the small ones first."""
    source, _, name = model_id.partition(":")
    if name in ("inception_v3", "googlenet") and source == "torchvision":
        # Their auxiliary heads, which run in training alone, need the size they were made for.
        return (299,) if name == "inception_v3" else (224,)
    if source == "timm":
        import timm

        if model_id in SMALLER:
            return (SMALLER[model_id],)
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.fixed_input_size:
            return (config.input_size[-1],)
    return zoo_libraries.sizes(source, name) or SIZES


def _kwargs(model_id: str) -> dict[str, object]:
    # Their constructors warn and take half a minute when they are to draw from scipy's truncated normal.
    if model_id in ("torchvision:inception_v3", "torchvision:googlenet"):
        return {"init_weights": False}
    # At its own 1024 x 1024, training attends over 4096 places and takes more than 24 GiB.
    return {"img_size": SMALLER[model_id]} if model_id in SMALLER else {}


def by_source(per_module: int) -> dict[str, Callable[[], list[str]]]:
    """The function that names a source's networks, by source; of timm `per_module` networks of every module."""
    return {
        "torchvision": torchvision_models,
        "detectors": detectors,
        "timm": lambda: timm_models(per_module),
        "huggingface": huggingface_models,
        "ultralytics": ultralytics_models,
        **{library: partial(zoo_libraries.names, library) for library in zoo_libraries.LIBRARIES},
    }
