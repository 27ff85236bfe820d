"""The package for Python users: the same verbs on objects in memory, and a one-liner that needs no file."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.networks import sources
from sesurgery.networks.block_costs import costs_or_mistakes
from sesurgery.networks.opened import faithfully
from sesurgery.networks.sources import surgeon_for
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.pipeline import load_spec as load_spec
from sesurgery.pipeline.plan import unseen
from sesurgery.planner import Plan
from sesurgery.spec import GivenSurgery, NamesSurgery, Spec, load_rule, load_shape
from sesurgery.spec.surgery import Filters
from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx.admission import admit, with_parts
from sesurgery.surgeons.fx.captured import example_inputs, part_inputs, run_whole
from sesurgery.surgeons.fx.inputs import Inputs, listed_image, tensors

_AS_CALLED = "give what the model is called with: a batch of images, a tuple of arguments, or a mapping of named ones"
_OF_LISTS = "name a part of it that takes an image batch as 'submodule'"
_RULE_KEYS = set(Filters.model_fields)

SpecLike = Spec | Path | str | Mapping[str, object]


def plan(spec: SpecLike, model: nn.Module | None = None) -> Plan:
    """Where the spec's blocks go in `model`, or in the spec's own network where none is given.

    Its `warnings` say what lies unseen in parts that cannot be traced.
    """
    spec = _spec(spec)
    if model is None:
        planned = pipeline.plan(spec)
        return _with_unseen(planned.plan, planned.network.leaves)
    outline = surgeon_for(spec).look(model)
    made = planner.plan(spec, outline.view)
    costs_or_mistakes(spec, made)
    return _with_unseen(made, outline.leaves)


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
        raise _no_batch(model, inputs, None if submodule else listed_image(example_input))
    shape = load_shape(image.shape[1:], pipeline.catalogs())
    wanted = load_rule({"insert": {"block": block, **own}, "at": _placement(at), **rule}, pipeline.catalogs())
    plain = isinstance(example_input, torch.Tensor) and not submodule
    network = TorchNetwork(model, shape, submodule, inputs=None if plain else inputs)
    changed = _changed(network, GivenSurgery((wanted,)))
    if submodule:
        run_whole(changed, whole)
    return changed


def _no_batch(model: nn.Module, inputs: Inputs, listed: torch.Tensor | None) -> SesurgeryError:
    """The error for an example without a batch; for a list of images it names the parts that are given a batch."""
    text = "example_input must hold an image batch [N, C, H, W], found"
    if listed is None:
        found = [list(tensor.shape) for tensor in tensors((inputs.two.args, inputs.two.kwargs or {}))]
        return fail("SE304", f"{text} {found or 'no tensor'}", _AS_CALLED)
    error = fail("SE304", f"{text} a list of images, the first {list(listed.shape)}", _OF_LISTS)
    return with_parts(error, model, tuple(listed.shape), given=inputs.two)


def _changed(network: TorchNetwork, surgery: NamesSurgery) -> nn.Module:
    used, changed = faithfully(network, lambda each: (each, each.apply(each.plan(surgery))))
    for warning in (*changed.warnings, *_unseen(used.leaves)):
        warnings.warn(warning, stacklevel=3)
    return changed.module


def _with_unseen(made: Plan, leaves: Sequence[Leaf]) -> Plan:
    return dataclasses.replace(made, warnings=(*made.warnings, *_unseen(leaves)))


def _unseen(leaves: Sequence[Leaf]) -> tuple[str, ...]:
    """A warning of the convolutions and gates that no rule can reach; none where nothing is hidden."""
    said = unseen([leaf for leaf in leaves if leaf.hidden or leaf.gates])
    return (said,) if said else ()


def _placement(at: str | Mapping[str, object] | Sequence[str] | re.Pattern[str]) -> str | Mapping[str, object]:
    if isinstance(at, re.Pattern):
        return {"placement": "module", "regex": at.pattern}
    return at if isinstance(at, str | Mapping) else {"placement": "module", "names": list(at)}


def _spec(given: SpecLike) -> Spec:
    return given if isinstance(given, Spec) else load_spec(given)
