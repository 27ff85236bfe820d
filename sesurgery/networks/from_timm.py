"""Networks of timm: by name, or of a repository of the Hugging Face hub: its config and safetensors alone are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import timm
from torch import nn

from sesurgery.networks.heads import NewHead
from sesurgery.networks.weights import load_backbone
from sesurgery.spec.model import HUB, LOADS

_CLASSES = "num_classes"
_SAFE = "model.safetensors"
_ELSEWHERE = ("file", "url", "state_dict", "custom_load")
"""What of a config would have values read from elsewhere, or by other code than that for safetensors."""


def names() -> Iterable[str]:
    """The names of its networks."""
    return list(timm.list_models())


def has(name: str) -> bool:
    """Whether it has that network, or the name is one of the hub."""
    return timm.is_model(name) or re.fullmatch(rf"{HUB}[\w.-]+/[\w.-]+(@[\w.-]+)?", name) is not None


def make(name: str, kwargs: Mapping[str, Any], *, pretrained: bool) -> tuple[nn.Module, NewHead | None]:
    """The network, and its head where the pretrained one has other classes; raises what the library raises."""
    if name.startswith(HUB):
        return _of_hub(name.removeprefix(HUB), kwargs, pretrained=pretrained)
    network = timm.create_model(name, pretrained=pretrained, **kwargs)
    return network, _head(network) if pretrained else None


def _head(network: Any) -> NewHead | None:
    """The head that timm has left fresh, as it does where the classes are others."""
    known = network.pretrained_cfg
    layers, before = known.get("classifier") or (), known.get(_CLASSES)
    if network.num_classes in (before, 0) or not layers:
        return None
    return NewHead((layers,) if isinstance(layers, str) else tuple(layers), network.num_classes, before, _PRETRAINED)


def _of_hub(place: str, kwargs: Mapping[str, Any], *, pretrained: bool) -> tuple[nn.Module, NewHead | None]:
    from timm.models import load_model_config_from_hf

    config, architecture, saved = load_model_config_from_hf(place)
    if not timm.is_model(architecture):
        raise ValueError(f"its config names {architecture!r}, which timm does not have")
    if loading := sorted(saved.keys() & set(LOADS)):
        raise ValueError(f"its config has {loading[0]!r}, by which other files are loaded")
    config = {key: value for key, value in config.items() if key not in _ELSEWHERE}
    config |= {"source": "hf-hub", "hf_hub_id": place, "hf_hub_filename": _SAFE}
    given = {**saved, **kwargs}
    # What the repository's own values are for; timm checks every key only where the classes are the same.
    own = {**given, _CLASSES: config.get(_CLASSES, given.get(_CLASSES))}
    if not pretrained:
        return timm.create_model(architecture, pretrained_cfg=config, **{**own, **given}), None
    network = timm.create_model(architecture, pretrained=True, pretrained_cfg=config, **own)
    if kwargs.get(_CLASSES, network.num_classes) == network.num_classes:
        return network, None
    fresh = timm.create_model(architecture, pretrained_cfg=config, **given)
    return fresh, load_backbone(fresh, network.state_dict(), f"{HUB}{place}")


_PRETRAINED = "the pretrained network"
