"""The package for Python users: the same verbs on objects in memory, and a one-liner that needs no file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.diagnostics import fail
from sesurgery.networks import sources
from sesurgery.networks.block_costs import costs_or_mistakes
from sesurgery.networks.opened import faithfully
from sesurgery.networks.sources import surgeon_for
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.pipeline import load_spec as load_spec
from sesurgery.planner import Plan
from sesurgery.spec import GivenSurgery, NamesSurgery, Spec, load_rule, load_shape
from sesurgery.spec.surgery import Filters
from sesurgery.surgeons.fx.admission import admit
from sesurgery.surgeons.fx.captured import example_inputs, part_inputs, run_whole
from sesurgery.surgeons.fx.inputs import tensors

_AS_CALLED = "give what the model is called with: a batch of images, a tuple of arguments, or a mapping of named ones"
_RULE_KEYS = set(Filters.model_fields)

SpecLike = Spec | Path | str | Mapping[str, object]


def plan(spec: SpecLike, model: nn.Module | None = None) -> Plan:
    """Where the spec's blocks go in `model`, or in the spec's own network where none is given."""
    spec = _spec(spec)
    if model is None:
        return pipeline.plan(spec).plan
    made = planner.plan(spec, surgeon_for(spec).view(model))
    costs_or_mistakes(spec, made)
    return made


def apply(spec: SpecLike, model: nn.Module | None = None) -> nn.Module:
    """A changed copy of `model` (or of the spec's own network) in which every block is proved to run.

    Fresh values come from torch's global generator. The model that is given stays untouched.
    """
    spec = _spec(spec)
    shape, part = spec.input.shape, getattr(spec.model, "submodule", "")
    file = sources.weights_file(spec) if model is None else None
    network = TorchNetwork(sources.build(spec) if model is None else model, shape, part, weights=file)
    return _changed(network, spec)


def insert(
    model: nn.Module,
    *,
    block: str = "se",
    at: str | Mapping[str, object] | Sequence[str] | re.Pattern[str] = "residual",
    example_input: torch.Tensor | tuple[object, ...] | Mapping[str, object],
    submodule: str = "",
    **options: object,
) -> nn.Module:
    """A changed copy of `model` with a block at every site of a placement; `model` stays untouched.

    `at` is a placement, or says after which modules: a list of their paths (globs), or a compiled regular expression.

    `example_input` is an image batch [N, C, H, W] (clips [N, C, T, H, W] for 3-d convolutions), of which only the shape
    is used, or whatever the model is called with: a tuple of arguments, or a mapping of named ones, each tensor with
    the batch first. With `submodule` only that part is changed, and is looked at as the model calls it on the example.
    Options are the block's own (`reduction=16`) or a rule's filters (`stages`, `within`, `except_`, `every`, `expect`,
    `name` ...).
    Raises SE304 if the example holds no image batch, and SpecError if nothing matches or an option is not known.
    """
    dims = (4, 5) if any(isinstance(part, nn.Conv3d) for part in model.modules()) else (4,)
    clips = 5 in dims and any(tensor.dim() == 5 for tensor in tensors(example_input))
    admit(model, 3 if clips else 2)
    rule = {key.rstrip("_"): value for key, value in options.items() if key in _RULE_KEYS}
    own = {key: value for key, value in options.items() if key not in _RULE_KEYS}
    if isinstance(example_input, torch.Tensor) and example_input.dim() not in dims:
        text = f"example_input must be an image batch [N, C, H, W], found {list(example_input.shape)}"
        raise fail("SE304", text, _AS_CALLED)
    whole = example_inputs(example_input)
    inputs = part_inputs(model, whole, submodule) if submodule else whole
    given = tensors((inputs.two.args, inputs.two.kwargs or {}))
    image = next((tensor for tensor in given if tensor.dim() in dims), None)
    if image is None:
        found = [list(tensor.shape) for tensor in tensors((inputs.two.args, inputs.two.kwargs or {}))]
        text = f"example_input must hold an image batch [N, C, H, W], found {found or 'no tensor'}"
        raise fail("SE304", text, _AS_CALLED)
    shape = load_shape(image.shape[1:], pipeline.catalogs())
    wanted = load_rule({"insert": {"block": block, **own}, "at": _placement(at), **rule}, pipeline.catalogs())
    plain = isinstance(example_input, torch.Tensor) and not submodule
    network = TorchNetwork(model, shape, submodule, inputs=None if plain else inputs)
    changed = _changed(network, GivenSurgery((wanted,)))
    if submodule:
        run_whole(changed, whole)
    return changed


def _changed(network: TorchNetwork, surgery: NamesSurgery) -> nn.Module:
    used, changed = faithfully(network, lambda each: (each, each.apply(each.plan(surgery))))
    for warning in used.warnings:
        warnings.warn(warning, stacklevel=3)
    return changed.module


def _placement(at: str | Mapping[str, object] | Sequence[str] | re.Pattern[str]) -> str | Mapping[str, object]:
    if isinstance(at, re.Pattern):
        return {"placement": "module", "regex": at.pattern}
    return at if isinstance(at, str | Mapping) else {"placement": "module", "names": list(at)}


def _spec(given: SpecLike) -> Spec:
    return given if isinstance(given, Spec) else load_spec(given)
