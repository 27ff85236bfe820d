"""Networks by name from timm, torchvision, transformers, Ultralytics or the user's own function, with local weights."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sesurgery.catalog import import_object
from sesurgery.diagnostics import SesurgeryError, described, fail, suggest
from sesurgery.networks.weights import WeightsFile
from sesurgery.spec import NamesModel, Spec
from sesurgery.spec.model import HuggingFaceModel, Model, OnnxModel, PythonModel, TimmModel, UltralyticsModel
from sesurgery.surgeons.fx.surgeon import FxSurgeon


def build(spec: NamesModel, *, weights: bool = True, beside: Path | None = None) -> nn.Module:
    """The network that `spec` names, in training mode; `weights=False` leaves pretrained values and files out.

    A python factory is looked for in `beside` first, by default the spec's own folder.

    Fresh values come from torch's global generator. Raises SE301 for a name its source does not know, SE302 if it
    cannot be built, SE303 if a factory cannot be imported, SE401 if a weights file does not fit.
    """
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

        folders = (beside or spec.folder, Path.cwd())
        return _with_values(build_huggingface(model, spec, folders, weights=weights), spec, weights=weights)
    if isinstance(model, UltralyticsModel):
        from sesurgery.networks.ultralytics import build_ultralytics

        return _with_values(build_ultralytics(model, spec), spec, weights=weights)
    factory = _factory(model, spec, beside or spec.folder)
    kwargs: dict[str, Any] = dict(model.kwargs)
    if not isinstance(model, PythonModel) and model.pretrained and weights:
        kwargs |= {"pretrained": True} if isinstance(model, TimmModel) else {"weights": "DEFAULT"}
    try:
        with warnings.catch_warnings():
            # Deprecations in libraries' constructors do not concern users of this program.
            warnings.simplefilter("ignore", FutureWarning)
            network = factory(**kwargs)
    except SesurgeryError:
        raise
    except Exception as error:  # constructors raise anything on wrong keywords or a failed download
        raise _not_built(spec, model, kwargs, error) from error
    if not isinstance(network, nn.Module):
        text = f"{model.name!r} gave {type(network).__name__}, not a torch.nn.Module"
        raise fail("SE302", text, "return the network itself", span=spec.span("model", "name"))
    return _with_values(network, spec, weights=weights)


def _not_built(spec: NamesModel, model: Model, kwargs: Mapping[str, Any], error: Exception) -> SesurgeryError:
    """The constructor's error as SE302, at the key that caused it."""
    text = f"{model.name!r} cannot be built: {described(error)}"
    if model is not spec.model and _DROP_PATH[model.source] in str(error):
        hint = "it takes no stochastic depth: set `drop_path: 0` under `train:`"
        return fail("SE302", text, hint, span=spec.span("train", "drop_path"))
    downloaded = "pretrained" in kwargs or "weights" in kwargs
    hint = (
        "the pretrained weights are downloaded: give a local file as 'checkpoint'" if downloaded else "check 'kwargs'"
    )
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


def _with_values(network: nn.Module, spec: NamesModel, *, weights: bool) -> nn.Module:
    """The network with the values of its checkpoint, where it names one."""
    if weights and (file := weights_file(spec)) is not None:
        file.load_network(network)
    return network


def weights_file(spec: NamesModel) -> WeightsFile | None:
    """The checkpoint that `spec` names, or None. What it has for inserted blocks waits until there are blocks."""
    checkpoint = getattr(spec.model, "checkpoint", None)
    if checkpoint is None:
        return None
    return WeightsFile(checkpoint, spec.folder / checkpoint.file, spec.span("model", "checkpoint"))


def surgeon_for(spec: Spec) -> FxSurgeon:
    """The surgeon for the spec's network, or for the part of it that the spec names."""
    return FxSurgeon(spec.input.shape, getattr(spec.model, "submodule", ""))


def _factory(model: Model, spec: NamesModel, beside: Path) -> Callable[..., nn.Module]:
    if isinstance(model, PythonModel):
        return _import(model.name, spec, beside)
    if isinstance(model, TimmModel):
        import timm

        known: Callable[[], Iterable[str]] = timm.list_models
        exists, create = timm.is_model(model.name), timm.create_model
    else:
        import torchvision

        known = torchvision.models.list_models
        exists, create = model.name in known(), _torchvision
    if not exists:
        text = f"{model.source} has no model {model.name!r}"
        raise fail("SE301", text, suggest(model.name, known()), span=spec.span("model", "name"))
    return lambda **kwargs: create(model.name, **kwargs)


def _torchvision(name: str, **kwargs: Any) -> nn.Module:
    """A network of torchvision; detectors and segmenters load their backbone's values unless they are told not to."""
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    backbone = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    return torchvision.models.get_model(name, **{**backbone, **kwargs})  # type: ignore[no-any-return]


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
