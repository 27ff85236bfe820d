"""The section `model:` of a spec: where the network comes from."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from sesurgery.spec.checkpoint import CheckpointField
from sesurgery.spec.code import Factory
from sesurgery.spec.frozen import Frozen

Scalar = bool | int | float | str | None
Kwarg = Scalar | list[Scalar] | dict[str, Scalar]

LOADS = (
    *("pretrained", "checkpoint_path", "cache_dir", "hf_hub_id", "state_dict", "weights", "weights_backbone"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_custom_load", "pretrained_model_args"),
)
"""Keyword arguments of timm and torchvision that read a given file, in some versions as a pickle, which runs code, or
that load pretrained values without the spec's own key."""


HUB = "hf-hub:"
"""How timm's names of repositories of the Hugging Face hub begin."""

WEIGHTS = "a local weights file, relative to the spec; or a mapping with `file:` and its key map"


def _loads_nothing(kwargs: dict[str, Kwarg]) -> dict[str, Kwarg]:
    for key in kwargs:
        if key in LOADS:
            raise PydanticCustomError("withheld", f"{key!r} is not passed on: it loads files", {"inner": [key]})
    return kwargs


LibraryKwargs = Annotated[dict[str, Kwarg], AfterValidator(_loads_nothing)]


class TimmModel(Frozen):
    """A network of timm by its name, or of a repository of the Hugging Face hub."""

    source: Literal["timm"]
    name: str = Field(description="a name of timm.list_models(), or hf-hub:OWNER/NAME")
    pretrained: bool = False
    checkpoint: CheckpointField = Field(None, description=WEIGHTS)
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="passed to timm.create_model")


class TorchvisionModel(Frozen):
    """A network of torchvision by its name."""

    source: Literal["torchvision"]
    name: str
    pretrained: bool = False
    checkpoint: CheckpointField = Field(None, description=WEIGHTS)
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="passed to torchvision.models.get_model")


class HuggingFaceModel(Frozen):
    """A network of transformers by its class, a local folder or a repository of the hub; no code beside it runs."""

    source: Literal["huggingface"]
    name: str = Field(description="a class of transformers, a folder relative to the spec, or OWNER/NAME on the hub")
    pretrained: bool = Field(False, description="load the folder's or the repository's values, from safetensors alone")
    checkpoint: CheckpointField = Field(None, description=WEIGHTS)
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="keys of the network's config")


class UltralyticsModel(Frozen):
    """A network of Ultralytics (AGPL, installed by the user) by the yaml family that it brings."""

    source: Literal["ultralytics"]
    name: str = Field(description="a family with its scale, such as yolo11n.yaml or yolov8n-cls.yaml")
    checkpoint: CheckpointField = Field(None, description=WEIGHTS)
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="'nc' classes and 'ch' channels")


class PythonModel(Frozen):
    """A network made by the user's own function. The named module is imported: it is code that runs."""

    source: Literal["python"]
    name: Annotated[Factory, Field(description="package.module:factory")]
    checkpoint: CheckpointField = Field(None, description=WEIGHTS)
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: dict[str, Kwarg] = Field(default_factory=dict, description="passed to the factory")


class OnnxModel(Frozen):
    """A network in an ONNX file."""

    source: Literal["onnx"]
    name: str = Field(description="path of the file, relative to the spec")


Model = Annotated[
    TimmModel | TorchvisionModel | HuggingFaceModel | UltralyticsModel | PythonModel | OnnxModel,
    Field(discriminator="source"),
]


MOVED = {
    "Batch": "engines",
    "Calibration": "engines",
    "Engine": "engines",
    "Export": "export",
    "Filters": "surgery",
    "Input": "input",
    "InsertRule": "surgery",
    "Latency": "latency",
    "Parity": "parity",
    "Precision": "engines",
    "Range": "study",
    "RemoveRule": "surgery",
    "ReplaceRule": "surgery",
    "Rule": "surgery",
    "Spec": "spec",
    "Study": "study",
    "Tolerance": "parity",
    "Train": "train",
}
"""Sections of the spec that were in this file before, and where they are now."""
RENAMED = {"Batch": "BatchSizes"}
"""What some of them are called there."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in MOVED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        now = f"sesurgery.spec.{MOVED[name]}"
        text = f"{__name__}.{name} is now {now}.{RENAMED.get(name, name)}; the old name goes with the next release"
        warnings.warn(text, FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(now), RENAMED.get(name, name))
