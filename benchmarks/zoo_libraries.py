"""Networks of libraries that the project does not know: how a spec names each, by `source: python`.

Chosen before any of them was examined: of pytorchcv the smallest network of a family, of segmentation_models_pytorch
each architecture on a small encoder, of MONAI its 2-D networks, of pretrainedmodels what no other library has.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from torch import nn

PYTORCHCV = (
    *("airnet50_1x64d_r2", "bagnet9", "bam_resnet18", "cbam_resnet18", "channelnet", "condensenet74_c8_g8"),
    *("darknet_ref", "darknet_tiny", "diaresnet10", "dicenet_wd5", "diracnet18v2", "dla46c", "drnc26"),
    *("efficientnet_b0b", "espnetv2_wd2", "fbnet_cb", "fdmobilenet_wd4", "ghostnet", "hardnet39ds"),
    *("hrnet_w18_small_v1", "ibn_resnet50", "igcv3_wd4", "menet108_8x1_g3", "mixnet_s", "mnasnet_small"),
    *("mobilenet_wd4", "mobilenetv3_small_w7d20", "peleenet", "preresnet18_wd4", "proxylessnas_cpu", "regnety002"),
    *("resnestabc14", "resnet10", "scnet50", "selecsls42", "sepreresnet10", "seresnet10", "sharesnet18"),
    *("shufflenet_g3_wd4", "shufflenetv2_wd2", "sknet50", "spnasnet", "sqnxt23_w1", "squeezenet_v1_1", "vovnet27s"),
    *("resnet20_cifar10", "sepreresnet20_cifar10", "seresnet20_cifar10"),
)
SMP = (
    *("DeepLabV3/resnet18", "DeepLabV3Plus/mobilenet_v2", "FPN/resnet18", "Linknet/resnet18", "MAnet/resnet18"),
    *("PAN/resnet18", "PSPNet/resnet18", "Segformer/resnet18", "UPerNet/resnet18", "Unet/dpn68"),
    *("Unet/efficientnet-b0", "Unet/resnet18", "UnetPlusPlus/mobilenet_v2"),
)
_FLAT = {"spatial_dims": 2, "in_channels": 3}
MONAI: dict[str, dict[str, Any]] = {
    "AttentionUnet": {**_FLAT, "out_channels": 2, "channels": [16, 32, 64, 128], "strides": [2, 2, 2]},
    "BasicUNet": {**_FLAT, "out_channels": 2},
    "BasicUNetPlusPlus": {**_FLAT, "out_channels": 2},
    "DenseNet121": {**_FLAT, "out_channels": 10},
    "DynUNet": {
        **_FLAT,
        "out_channels": 2,
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
    },
    "EfficientNetBN": {"model_name": "efficientnet-b0", "pretrained": False},
    "HighResNet": {**_FLAT, "out_channels": 2},
    "SEResNet50": {**_FLAT, "num_classes": 10},
    "SegResNet": {**_FLAT, "out_channels": 2},
    "UNet": {**_FLAT, "out_channels": 2, "channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 2},
    "VNet": {**_FLAT, "out_channels": 2},
    "resnet18": {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 10},
}
PRETRAINEDMODELS = ("bninception", "dpn68", "nasnetamobile", "se_resnet50", "vggm", "xception")
EFFICIENTNET_PYTORCH = ("efficientnet-b0", "efficientnet-b1")

LIBRARIES = {
    "pytorchcv": "pytorchcv",
    "smp": "segmentation_models_pytorch",
    "monai": "monai",
    "pretrainedmodels": "pretrainedmodels",
    "efficientnet_pytorch": "efficientnet_pytorch",
}
"""Each library's package by the name that stands before the colon."""


def names(source: str) -> list[str]:
    """The chosen networks of a library, `LIBRARY:NAME`."""
    chosen = {
        "pytorchcv": PYTORCHCV,
        "smp": SMP,
        "monai": tuple(MONAI),
        "pretrainedmodels": PRETRAINEDMODELS,
        "efficientnet_pytorch": EFFICIENTNET_PYTORCH,
    }
    return [f"{source}:{name}" for name in chosen[source]]


def model_of(source: str, name: str) -> dict[str, Any]:
    """The section `model:` of a spec for it."""
    factory, kwargs = {
        "pytorchcv": lambda: ("pytorchcv.model_provider:get_model", {"name": name, "pretrained": False}),
        "smp": lambda: _smp(*name.split("/")),
        "monai": lambda: (f"monai.networks.nets:{name}", MONAI[name]),
        "pretrainedmodels": lambda: (f"pretrainedmodels.models:{name}", {"num_classes": 1000, "pretrained": None}),
        "efficientnet_pytorch": lambda: ("zoo_libraries:efficientnet", {"name": name}),
    }[source]()
    return {"source": "python", "name": factory, "kwargs": kwargs}


def _smp(architecture: str, encoder: str) -> tuple[str, dict[str, Any]]:
    kwargs = {"encoder_name": encoder, "encoder_weights": None, "classes": 2}
    return f"segmentation_models_pytorch:{architecture}", kwargs


def efficientnet(name: str) -> nn.Module:
    """Its own constructor is a class method, which no spec can name."""
    made: nn.Module = importlib.import_module("efficientnet_pytorch").EfficientNet.from_name(name)
    return made


def build(source: str, name: str) -> nn.Module:
    """The network as the spec would build it."""
    model = model_of(source, name)
    module, _, factory = model["name"].partition(":")
    made: nn.Module = getattr(importlib.import_module(module), factory)(**model["kwargs"])
    return made


def sizes(source: str, name: str) -> tuple[int, ...] | None:
    """The size whose last map their pool of fixed size takes; None where every size is taken."""
    if "cifar" in name:
        return (32,)
    return (224,) if source in ("pytorchcv", "pretrainedmodels") else None


def version(source: str) -> dict[str, str]:
    """The library's version under the name of the source; empty for libraries that results name anyway."""
    packages = LIBRARIES | {"ultralytics": "ultralytics"}
    return {source: importlib.metadata.version(packages[source])} if source in packages else {}
