"""Networks that surgery cannot work on are refused before anything is tried, with parts that could be named instead."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.graph import Shape
from sesurgery.placements.conv import Conv
from sesurgery.placements.residual import Residual
from sesurgery.planner.resolve import offered
from sesurgery.surgeons.fx.captured import called_with
from sesurgery.surgeons.fx.causes import is_known
from sesurgery.surgeons.fx.inputs import Given, image_inputs, tensors
from sesurgery.surgeons.fx.view import draw

_MOST = 4
_DEEPEST = 3


def admit(network: nn.Module, axes: int = 2) -> None:
    """Raise SE403 for a network whose forward cannot be traced, or that has no values, or has maps of other axes."""
    kind = type(network).__name__
    if isinstance(network, torch.jit.ScriptModule):
        text = f"{kind} is a scripted network: its forward is not Python any more"
        raise fail("SE403", text, "insert the blocks first, then call torch.jit.script on the result")
    if hasattr(network, "_orig_mod"):
        text = f"{kind} is a compiled network"
        raise fail(
            "SE403",
            text,
            "insert the blocks into the network that was compiled, `model._orig_mod`, and compile the result",
        )
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise fail(
            "SE403", f"{kind} only wraps a network", "insert the blocks into `model.module`, and wrap the result"
        )
    _admit_dimensions(network, axes)
    for name, parameter in network.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise fail("SE403", f"the parameter {name!r} has no shape yet", "run the network once on an example first")
        if parameter.is_meta:
            text = f"the parameter {name!r} is on the meta device: it has no values to keep"
            raise fail("SE403", text, "give the network values first: `model.to_empty(device='cpu')`, then load them")


def _admit_dimensions(network: nn.Module, axes: int) -> None:
    parts = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Conv3d)]
    if axes == 2 and parts and all(isinstance(part, nn.Conv3d) for _, part in parts):
        name = parts[0][0] or type(network).__name__
        text = f"{type(network).__name__} convolves over three dimensions ({name!r}): maps are [N, C, T, H, W]"
        raise fail("SE403", text, "give it clips: four sizes, channels, time, height and width")


def with_parts(
    error: SesurgeryError, network: nn.Module, shape: Shape, instead: str = "", given: Given | None = None
) -> SesurgeryError:
    """The error with a hint that names parts which can be traced alone, and how many sites each offers.

    `shape` is that of one image; `instead` is the hint's first half, another way out. Where the network is called with
    what is `given`, a part that it calls with no batch of images is none. Where what was raised has a hint of its own,
    no part is looked for.
    """
    if is_known(error.__cause__):
        return error
    found = _parts(network, shape, given)
    if not found:
        return error
    hint = f"{instead}name a part of it as 'submodule': " + ", ".join(found[:_MOST])
    first, *others = error.diagnostics
    # A way out that several share is said once.
    others = [dataclasses.replace(other, hint=None) if other.hint == first.hint else other for other in others]
    return SesurgeryError([dataclasses.replace(first, hint=hint), *others])


def _parts(network: nn.Module, shape: Shape, given: Given | None) -> list[str]:
    """What is offered by the network's children that take an image batch; by theirs where none does, and so on."""
    level = [("", network)]
    for _ in range(_DEEPEST):
        level = [
            (f"{outer}.{name}" if outer else name, child)
            for outer, module in level
            for name, child in module.named_children()
            if any(isinstance(part, nn.Conv2d) for part in child.modules())
        ]
        offers = ((path, _offered(path, child, shape)) for path, child in level)
        found = [said for path, said in offers if said and (given is None or _takes_a_batch(network, given, path))]
        if found:
            return found
    return []


def _takes_a_batch(network: nn.Module, given: Given, path: str) -> bool:
    call = called_with(network, given, path)
    return call is not None and any(tensor.dim() == 4 for tensor in tensors((call.args, dict(call.kwargs or {}))))


def _offered(path: str, part: nn.Module, shape: Shape) -> str:
    try:
        view = draw(part, image_inputs(part, shape)).view
    except SesurgeryError:
        return ""
    units, convolutions = offered(Residual(), view), offered(Conv(), view)
    return f"{path!r} ({units} sites at residual, {convolutions} at conv)" if units or convolutions else ""
