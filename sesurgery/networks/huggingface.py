"""Networks of transformers by class, local folder or hub name; code that lies beside weights is never run.

A changed network is still transformers' own: `save_pretrained` and its trainers work. Called as `network(images)` it
gives one tensor, which training and engines need; called by keywords (`pixel_values=`, `labels=`) its own output.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sesurgery.diagnostics import described, fail, first_line, suggest
from sesurgery.networks.heads import NewHead, new_head
from sesurgery.spec import NamesModel
from sesurgery.spec.model import HuggingFaceModel

_TENSORS = ("logits", "last_hidden_state", "feature_maps")
_LOADING = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "hf_hub_id")
_TRUE_LOADS = ("use_pretrained_backbone", "use_timm_backbone", "use_kernels")
_NAMES = ("architecture", "backbone", "attn_implementation", "_attn_implementation", "experts_implementation")


def build_huggingface(
    model: HuggingFaceModel, spec: NamesModel, folders: tuple[Path, ...], *, weights: bool
) -> tuple[Any, NewHead | None]:
    """The network of a spec, in training mode and float32, and its head where the file's has other classes.

    Folders of weights are looked for in `folders`.

    Raises SE301 for a class that transformers does not have, SE302 if the network cannot be built.
    """
    transformers = _transformers(spec)
    name, kwargs = model.name, dict(model.kwargs)
    _harmless(kwargs, spec, "kwargs")
    if "/" not in name and (kind := getattr(transformers, name, None)) is not None:
        if model.pretrained:
            text = f"{name!r} is a class: it has no weights of its own"
            hint = "name a hub repository or a local folder, or leave 'pretrained' out"
            raise fail("SE302", text, hint, span=spec.span("model", "pretrained"))
        network, head = _of_config(_image_class(kind, spec), kwargs, spec), None
    else:
        network, head = _of_place(model, _place(name, spec, folders), kwargs, spec, weights=weights)
    network.register_forward_hook(_one_tensor, with_kwargs=True)
    return network.train(), head


def _one_tensor(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    """The tensor that an image alone asks for; None leaves the output as it is."""
    if kwargs or len(args) != 1 or not isinstance(output, Mapping) or "pred_boxes" in output:
        return None
    found = next((output[key] for key in _TENSORS if output.get(key) is not None), None)
    return found[-1] if isinstance(found, tuple | list) else found


def _transformers(spec: NamesModel) -> Any:
    try:
        import transformers
    except ImportError as error:
        text = f"'source: huggingface' needs transformers: {first_line(error)}"
        hint = "pip install 'sesurgery[huggingface]'"
        raise fail("SE302", text, hint, span=spec.span("model", "source")) from error
    return transformers


def _image_class(kind: Any, spec: NamesModel) -> Any:
    span = spec.span("model", "name")
    shown = getattr(kind, "__name__", str(kind))
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and getattr(kind, "config_class", None)):
        text = f"{shown!r} of transformers is not a network"
        raise fail("SE302", text, suggest(shown, _classes()), span=span)
    if (takes := kind.main_input_name) != "pixel_values":  # type: ignore[attr-defined]
        text = f"{shown!r} takes {takes!r}, not images"
        raise fail("SE302", text, "name a class that takes 'pixel_values'", span=span)
    return kind


def _of_config(kind: Any, kwargs: dict[str, Any], spec: NamesModel) -> Any:
    try:
        known = kind.config_class()
        _known_keys(known, kwargs, spec)
        config = kind.config_class(**kwargs)
        _harmless(config.to_dict(), spec, "name")
        return kind._from_config(config, dtype=torch.float32)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, RuntimeError) as error:
        raise _unbuilt(kind.__name__, error, spec, "check 'kwargs'") from error


def _of_place(
    model: HuggingFaceModel, where: str, kwargs: dict[str, Any], spec: NamesModel, *, weights: bool
) -> tuple[nn.Module, NewHead | None]:
    """A network from a folder or the hub: its class by its config, its values from safetensors alone."""
    import transformers
    from transformers import AutoConfig

    try:
        raw, _ = transformers.PreTrainedConfig.get_config_dict(where)
        _harmless(raw, spec, "name")
        kind = _image_class(_named_class(raw, model.name, spec), spec)
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        _known_keys(config, kwargs, spec)
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **kwargs)
        if not (model.pretrained and weights):
            return kind._from_config(config, dtype=torch.float32), None
        network, report = _loaded(kind, where, config, "num_labels" in kwargs)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, RuntimeError) as error:
        hint = "name a folder with config.json, or a repository of the hub as OWNER/NAME, which needs a network"
        raise _unbuilt(model.name, error, spec, hint) from error
    missing = sorted(report["missing_keys"])
    if missing and "num_labels" not in kwargs:
        text = f"{model.name!r} has no values for {len(missing)} of its keys ({', '.join(missing[:3])})"
        hint = "give 'num_labels' in 'kwargs' for a new head, or leave 'pretrained' out"
        raise fail("SE401", text, hint, span=spec.span("model", "name"))
    return network, _head(report["mismatched_keys"], network, model.name)


def _head(mismatched: Iterable[tuple[str, torch.Size, torch.Size]], network: nn.Module, of: str) -> NewHead | None:
    shapes = {key: torch.empty(before, device="meta") for key, before, _ in mismatched}
    return new_head(network, shapes, of)


def _loaded(kind: Any, where: str, config: Any, new_head: bool) -> tuple[nn.Module, Mapping[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, report = kind.from_pretrained(
            where,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=new_head,
            output_loading_info=True,
        )
    return network, report


def _named_class(raw: Mapping[str, Any], name: str, spec: NamesModel) -> Any:
    import transformers

    named = next(iter(raw.get("architectures") or ()), None)
    kind = getattr(transformers, named, None) if isinstance(named, str) else None
    if kind is None:
        found = f"the class {named!r}, which transformers does not have" if named else "no class ('architectures')"
        hint = "code that lies beside weights is not run: import it yourself and use 'source: python'"
        raise fail("SE302", f"the config of {name!r} names {found}", hint, span=spec.span("model", "name"))
    return kind


def _place(name: str, spec: NamesModel, folders: tuple[Path, ...]) -> str:
    for folder in folders:
        if (folder / name / "config.json").is_file():
            return str(folder / name)
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        text = f"huggingface has no model {name!r}: no class of transformers, and no folder with a config.json"
        raise fail("SE301", text, suggest(name, _classes()), span=spec.span("model", "name"))
    return name


def _classes() -> list[str]:
    from transformers.models.auto import modeling_auto as known

    names = (known.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, known.MODEL_FOR_BACKBONE_MAPPING_NAMES)
    found = [value for names_ in names for value in names_.values()]
    return [item for value in found for item in (value if isinstance(value, tuple) else (value,))]


def _known_keys(config: Any, kwargs: Mapping[str, Any], spec: NamesModel) -> None:
    """transformers keeps an unknown key and ignores it."""
    for key in kwargs:
        if not hasattr(config, key):
            text = f"{type(config).__name__} has no key {key!r}"
            hint = "classes are 'num_labels'" if key == "num_classes" else suggest(key, config.to_dict())
            raise fail("SE302", text, hint, span=spec.span("model", "kwargs", key, key=True))


def _harmless(config: Mapping[str, Any], spec: NamesModel, key: str) -> None:
    """Raise SE302 if a config would load other files, or kernels, which are code."""
    for name, value in _pairs(config):
        address = name in _NAMES and isinstance(value, str) and ("/" in value or ":" in value)
        if address or (name in _LOADING and value) or (name in _TRUE_LOADS and value is True):
            text = f"the config has {name}: {value!r}, by which other files or code are loaded"
            hint = "leave it out; a network of timm is 'source: timm', weights of your own are 'checkpoint'"
            raise fail("SE302", text, hint, span=spec.span("model", key))


def _pairs(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key), item
            yield from _pairs(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _pairs(item)


def _unbuilt(name: str, error: Exception, spec: NamesModel, hint: str) -> Exception:
    text = f"{name!r} cannot be built: {described(error)}"
    return fail("SE302", text, hint, span=spec.span("model", "name"))
