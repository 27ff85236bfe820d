"""What the zoo's networks are measured against: the same network in another library, or a plain one and SE by hand.

Where a library has the plain network only, its parameters and those of blocks on the papers' maps make the reference:
2 * C * h + h + C for C channels and h = C // 16.
"""

from __future__ import annotations

import importlib.util
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

Widths = Mapping[int, int]
"""How many blocks there are on maps of so many channels."""


@dataclass(frozen=True)
class Reference:
    """A network of another library. `changes` make the zoo's spec the same; `why` says what they do not make equal."""

    library: str
    name: str
    build: Callable[[], nn.Module]
    keys: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    blocks: Widths | None = None
    why: str = ""
    difference: int = 0
    """Of the parameters, the zoo's less its own, for the reason `why`."""


def by_formula(blocks: Widths) -> int:
    return sum(count * (2 * c * (c // 16) + c // 16 + c) for c, count in blocks.items())


def timm(name: str, **options: Any) -> Reference:
    from timm import create_model

    return Reference("timm", name, lambda: create_model(name), **options)


def pytorchcv(name: str, **options: Any) -> Reference:
    from pytorchcv.model_provider import get_model

    return Reference("pytorchcv", name, lambda: get_model(name), **{"keys": "pytorchcv", **options})


def made_by_pytorchcv(family: str, name: str, size: Mapping[str, int | bool], **options: Any) -> Reference:
    """One of a family for CIFAR-10 that has no name of its own."""
    module = importlib.import_module(f"pytorchcv.models.{family}")

    def build() -> nn.Module:
        made: nn.Module = getattr(module, f"get_{family}")(num_classes=10, **size)
        return made

    return Reference("pytorchcv", name, build, **{"keys": "pytorchcv", **options})


def cadene(name: str, ours: str) -> Reference:
    """A network of pretrainedmodels, and the zoo's on the backbone of its kind."""

    def build() -> nn.Module:
        network: nn.Module = getattr(_senet(), name)(num_classes=1000, pretrained=None)
        # Its pooling takes maps of 7 x 7 alone.
        network.avg_pool = nn.AdaptiveAvgPool2d(1)
        return network

    model = {"model.source": "python", "model.name": f"sesurgery.networks.caffe_resnet:{ours}", "model.kwargs": {}}
    return Reference("pretrainedmodels", name, build, "cadene", model)


def _senet() -> types.ModuleType:
    found = importlib.util.find_spec("pretrainedmodels")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pretrainedmodels is not installed")
    # The file alone: importing the package asks for libraries of its data sets.
    source = importlib.util.spec_from_file_location("senet", Path(found.origin).parent / "models" / "senet.py")
    if source is None or source.loader is None:
        raise ModuleNotFoundError("pretrainedmodels has no models/senet.py")
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


BIASED = {"surgery[0].insert.bias": True}
ROUNDED = {"surgery[0].insert.divisor": 8}
STEM = "a norm behind the stem"
STEM_AND_END = "a norm behind the stem, and none at the end"
WIDE = {128: 2, 256: 2, 512: 2}
BOTTLENECKS = {256: 3, 512: 3, 1024: 3}
BN_INCEPTION = {256: 1, 320: 1, 576: 3, 608: 2, 1056: 1, 1024: 2}
V3 = {256: 1, 288: 2, 768: 5, 1280: 1, 2048: 2}
V4 = {384: 4, 1024: 8, 1536: 4}
RESIDUAL_V2 = {320: 10, 1088: 20, 2080: 10}


_TIMM = ("seresnet50", "seresnet101", "seresnet152", "seresnext50_32x4d", "seresnext101_32x4d", "senet154")
_CADENE = {
    "seresnet50": [("se_resnet50", "resnet50")],
    "seresnext50_32x4d": [("se_resnext50_32x4d", "resnext50_32x4d")],
    "senet154": [("senet154", "senet154")],
}
"""In his files, and the backbone of its kind. The deeper ones differ by their depth alone."""


def references(name: str) -> list[Reference]:
    """Of one network of the zoo; none for `seresnet46`, which no library has."""
    if name in ("seresnet18", "seresnet34"):
        return [timm(name, keys="timm", changes=ROUNDED), pytorchcv(name)]
    if name in _TIMM:
        return [timm(name, keys="timm"), *(cadene(theirs, ours) for theirs, ours in _CADENE.get(name, ()))]
    return _REST[name]() if name in _REST else []


def _for_cifar(depth: int) -> list[Reference]:
    size = {"blocks": depth, "bottleneck": False}
    return [made_by_pytorchcv("seresnet_cifar", f"seresnet{depth}_cifar10", size, changes=BIASED)]


def _v2(depth: int) -> list[Reference]:
    return [pytorchcv(f"sepreresnet{depth}b", keys=None, why=STEM, difference=-128)]


_REST: dict[str, Callable[[], list[Reference]]] = {
    **{f"seresnet{depth}": lambda depth=depth: _for_cifar(depth) for depth in (20, 32, 44, 56, 110)},
    **{f"seresnetv2_{depth}": lambda depth=depth: _v2(depth) for depth in (50, 101, 152, 200)},
    "seresnet200": lambda: [pytorchcv("seresnet200b")],
    "sepreresnet110": lambda: [
        pytorchcv("sepreresnet110_cifar10", keys=None, why=STEM_AND_END, difference=96),
        pytorchcv("preresnet110_cifar10", blocks={16: 18, 32: 18, 64: 18}),
    ],
    "seresnet164": lambda: [
        pytorchcv("sepreresnet164bn_cifar10", keys=None, why=STEM_AND_END, difference=480),
        pytorchcv("preresnet164bn_cifar10", blocks={64: 18, 128: 18, 256: 18}),
    ],
    "sewrn16_8": lambda: [
        made_by_pytorchcv("wrn_cifar", "wrn16_8_cifar10", {"blocks": 16, "width_factor": 8}, keys=None, blocks=WIDE)
    ],
    "seresnext29_8x64d": lambda: [
        made_by_pytorchcv(
            "resnext_cifar",
            "resnext29_8x64d_cifar10",
            {"blocks": 29, "cardinality": 8, "bottleneck_width": 64},
            keys=None,
            blocks=BOTTLENECKS,
        )
    ],
    "seinception_v3": lambda: [pytorchcv("inceptionv3", keys=None, blocks=V3)],
    "seinception_v4": lambda: [pytorchcv("inceptionv4", keys=None, blocks=V4)],
    "seinception_resnet_v2": lambda: [pytorchcv("inceptionresnetv2", keys=None, blocks=RESIDUAL_V2)],
    "sebn_inception": lambda: [
        pytorchcv(
            "bninception",
            keys=None,
            blocks=BN_INCEPTION,
            why="biases of the convolutions before norms",
            difference=-10_016,
        )
    ],
    "semobilenet": lambda: [
        pytorchcv("mobilenet_w1", keys=None, blocks={64: 1, 128: 2, 256: 2, 512: 6, 1024: 2}),
    ],
    "seshufflenet": lambda: [pytorchcv("shufflenet_g3_w1", keys=None, blocks={240: 3, 480: 7, 960: 3})],
    "sevgg16_bn": lambda: [pytorchcv("bn_vgg16b", keys=None, blocks={64: 2, 128: 2, 256: 3, 512: 6})],
    "sedensenet121": lambda: [timm("densenet121", blocks={32: 58})],
}
