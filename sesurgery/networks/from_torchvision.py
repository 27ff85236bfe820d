"""Networks of torchvision by name. `pretrained` loads the library's default weights; a head of other classes is new."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torchvision.models
from torch import nn

from sesurgery.networks.heads import NewHead, OtherClassesError, new_head

_CLASSES = "num_classes"


def names() -> Iterable[str]:
    """The names of its networks."""
    return torchvision.models.list_models()  # type: ignore[no-any-return]


def has(name: str) -> bool:
    """Whether it has that network."""
    return name in names()


def make(name: str, kwargs: Mapping[str, Any], *, pretrained: bool) -> tuple[nn.Module, NewHead | None]:
    """The network, and its head where the pretrained one has other classes; raises what the library raises."""
    if not pretrained:
        return _made(name, kwargs), None
    published = torchvision.models.get_model_weights(name).DEFAULT
    before = len(published.meta.get("categories", ()))
    if kwargs.get(_CLASSES, before) == before:
        return _made(name, {**kwargs, "weights": published}), None
    # The library refuses weights of other classes. With its own, the network is as its weights want it (googlenet's
    # `transform_input`), and the layers of the head are taken from one that has the classes.
    network = _made(name, {key: value for key, value in kwargs.items() if key != _CLASSES} | {"weights": published})
    fresh = _made(name, kwargs)
    kept = {key: value for key, value in network.state_dict().items() if key in fresh.state_dict()}
    head = new_head(fresh, kept, "the pretrained network")
    if head is None:
        raise OtherClassesError(f"its pretrained weights are of {before} classes, in more than its last layer")
    for layer in head.layers:
        network.set_submodule(layer, fresh.get_submodule(layer))
    return network, head


def _made(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """A network; detectors and segmenters load their backbone's values unless they are told not to."""
    builder = torchvision.models.get_model_builder(name)
    backbone = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    return torchvision.models.get_model(name, **{**backbone, **kwargs})  # type: ignore[no-any-return]
