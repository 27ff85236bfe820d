"""Networks by name from timm, torchvision, transformers, Ultralytics or the user's own function, with local weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from sesurgery.catalog import import_object
from sesurgery.diagnostics import SesurgeryError, described, fail, suggest
from sesurgery.networks.heads import NewHead, OtherClassesError
from sesurgery.networks.weights import WeightsFile
from sesurgery.spec import NamesModel, Spec
from sesurgery.spec.model import (
    HUB,
    HuggingFaceModel,
    Model,
    OnnxModel,
    PythonModel,
    TimmModel,
    TorchvisionModel,
    UltralyticsModel,
)
from sesurgery.surgeons.fx.surgeon import FxSurgeon


@dataclass(frozen=True)
class NamedNetwork:
    """A network as a spec names it, and its head where that is of other classes than the values it was given."""

    module: nn.Module
    head: NewHead | None = None


def build(spec: NamesModel, *, weights: bool = True, beside: Path | None = None) -> nn.Module:
    """The network that `spec` names, in training mode; `weights=False` leaves pretrained values and files out.

    A python factory is looked for in `beside` first, by default the spec's own folder.

    Fresh values come from torch's global generator. Raises SE301 for a name its source does not know, SE302 if it
    cannot be built, SE303 if a factory cannot be imported, SE401 if a weights file does not fit.
    """
    return build_named(spec, weights=weights, beside=beside).module


def build_named(spec: NamesModel, *, weights: bool = True, beside: Path | None = None) -> NamedNetwork:
    """The same, and whether its head is new."""
    named = _of_source(spec, weights=weights, beside=beside)
    file = weights_file(spec) if weights else None
    return named if file is None else NamedNetwork(named.module, file.load_network(named.module))


def _of_source(spec: NamesModel, *, weights: bool, beside: Path | None) -> NamedNetwork:
    """The network with the values that its source has for it."""
    model = _with_drop_path(spec)
    if isinstance(model, OnnxModel):
        text = "a network that is an ONNX file cannot be built as a torch module"
        raise fail(
            "SE302",
            text,
            "name a timm, torchvision, huggingface, ultralytics or python model",
            span=spec.span("model", "source"),
        )
    if isinstance(model, HuggingFaceModel):
        from sesurgery.networks.huggingface import build_huggingface

        return NamedNetwork(*build_huggingface(model, spec, (beside or spec.folder, Path.cwd()), weights=weights))
    if isinstance(model, UltralyticsModel):
        from sesurgery.networks.ultralytics import build_ultralytics

        return NamedNetwork(build_ultralytics(model, spec))
    make = _maker(model, spec, beside or spec.folder, pretrained=weights and getattr(model, "pretrained", False))
    try:
        with warnings.catch_warnings():
            # Deprecations in libraries' constructors do not concern users of this program.
            warnings.simplefilter("ignore", FutureWarning)
            named = make(model.kwargs)
    except SesurgeryError:
        raise
    except Exception as error:  # constructors raise anything on wrong keywords or a failed download
        raise _not_built(spec, model, error, weights=weights) from error
    if not isinstance(named.module, nn.Module):
        text = f"{model.name!r} gave {type(named.module).__name__}, not a torch.nn.Module"
        raise fail("SE302", text, "return the network itself", span=spec.span("model", "name"))
    return named


def _not_built(spec: NamesModel, model: Model, error: Exception, *, weights: bool) -> SesurgeryError:
    """The constructor's error as SE302, at the key that caused it."""
    text = f"{model.name!r} cannot be built: {described(error)}"
    if model is not spec.model and _DROP_PATH[model.source] in str(error):
        hint = "it takes no stochastic depth: set `drop_path: 0` under `train:`"
        return fail("SE302", text, hint, span=spec.span("train", "drop_path"))
    downloaded = weights and getattr(model, "pretrained", False)
    hint = (
        "the pretrained weights are downloaded: give a local file as 'checkpoint'" if downloaded else "check 'kwargs'"
    )
    if model.source == "timm" and model.name.startswith(HUB):
        files = "config.json and model.safetensors" if downloaded else "config.json"
        hint = f"{files} of the repository are read, from the hub or from its local cache, and no pickle"
    if isinstance(error, OtherClassesError):
        hint = "leave 'num_classes' or 'pretrained' out, or give a local file as 'checkpoint'"
    return fail("SE302", text, hint, span=spec.span("model", "kwargs" if getattr(model, "kwargs", None) else "name"))


_DROP_PATH = {
    "timm": "drop_path_rate",
    "torchvision": "stochastic_depth_prob",
    "huggingface": "drop_path_rate",
    "python": "drop_path_rate",
}
"""The argument by which the networks of a source take their stochastic depth."""


def _with_drop_path(spec: NamesModel) -> Model:
    """The spec's `model:` with its `train: drop_path` among the arguments, unless they say it themselves."""
    rate: float = getattr(getattr(spec, "train", None), "drop_path", 0.0)
    model = spec.model
    if isinstance(model, OnnxModel | UltralyticsModel) or not rate or _DROP_PATH[model.source] in model.kwargs:
        return model
    return model.model_copy(update={"kwargs": {**model.kwargs, _DROP_PATH[model.source]: rate}})


def weights_file(spec: NamesModel) -> WeightsFile | None:
    """The checkpoint that `spec` names, or None. What it has for inserted blocks waits until there are blocks."""
    checkpoint = getattr(spec.model, "checkpoint", None)
    if checkpoint is None:
        return None
    return WeightsFile(checkpoint, spec.folder / checkpoint.file, spec.span("model", "checkpoint"))


def surgeon_for(spec: Spec) -> FxSurgeon:
    """The surgeon for the spec's network, or for the part of it that the spec names."""
    return FxSurgeon(spec.input.shape, getattr(spec.model, "submodule", ""))


def _maker(
    model: TimmModel | TorchvisionModel | PythonModel, spec: NamesModel, beside: Path, *, pretrained: bool
) -> Callable[[Mapping[str, Any]], NamedNetwork]:
    """What makes the network of its keyword arguments; raises SE301 or SE303 if the name is not known."""
    if isinstance(model, PythonModel):
        factory = _import(model.name, spec, beside)
        return lambda kwargs: NamedNetwork(factory(**kwargs))
    source: ModuleType
    if isinstance(model, TimmModel):
        from sesurgery.networks import from_timm as source
    else:
        from sesurgery.networks import from_torchvision as source
    if not source.has(model.name):
        text = f"{model.source} has no model {model.name!r}"
        raise fail("SE301", text, suggest(model.name, source.names()), span=spec.span("model", "name"))
    return lambda kwargs: NamedNetwork(*source.make(model.name, kwargs, pretrained=pretrained))


def _import(name: str, spec: NamesModel, beside: Path) -> Callable[..., nn.Module]:
    try:
        # A factory beside the spec or in the current folder is found, as `python -m` would.
        found = import_object(name, (beside, Path.cwd()))
    except Exception as error:
        text = f"the factory {name!r} cannot be imported: {described(error)}"
        hint = "it is looked for beside the spec, in the current folder and on the Python path"
        raise fail("SE303", text, hint, span=spec.span("model", "name")) from error
    if not callable(found):
        raise fail(
            "SE303",
            f"{name!r} is not a function",
            "name a function that returns the network",
            span=spec.span("model", "name"),
        )
    return found
