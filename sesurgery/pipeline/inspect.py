"""The verb `inspect`: what a network offers, before there is a spec; and a plan as a picture."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from sesurgery.accounting import Cost, cost
from sesurgery.artifacts import write_text
from sesurgery.diagnostics import SesurgeryError, fail, located
from sesurgery.drawing.picture import MARK, to_svg
from sesurgery.graph import GraphView, Shape
from sesurgery.graph.gates import channel_gates
from sesurgery.graph.idioms import ResidualAdd, conv_units, residual_adds
from sesurgery.networks import sources
from sesurgery.networks.sources import surgeon_for
from sesurgery.pipeline.plan import Planned
from sesurgery.pipeline.specs import files_of, load_spec
from sesurgery.placements import PLACEMENTS
from sesurgery.planner.resolve import Surroundings, resolve
from sesurgery.reports.inspection import Gate, Inspection, Offer, kind_of
from sesurgery.spec import Spec
from sesurgery.spec.model import Input, OnnxModel
from sesurgery.surgeons.base import Leaf, Sight
from sesurgery.workspace.targets import claim, marked

if TYPE_CHECKING:
    import onnx

SOURCES = ("timm", "torchvision", "python")


Network: TypeAlias = "nn.Module | onnx.ModelProto"


@dataclass(frozen=True)
class Seen:
    """A network that was built and looked at. `spec` holds its model and its input; its rules are of no account."""

    name: str
    spec: Spec
    network: Network
    view: GraphView
    leaves: tuple[Leaf, ...]
    assumed: bool
    """Whether the input's shape is a guess."""


def inspect(model: str, shape: Shape | None = None, at: Sequence[str] = ()) -> Inspection:
    """Look at a network; `at` names the placements to try, by default all that need no options."""
    names = tuple(at) or structural()
    for name in names:
        if name not in structural():
            PLACEMENTS.load(name)
            text = f"the placement {name!r} takes options and is not to be found in a structure"
            raise fail("SE105", text, f"structural placements: {', '.join(structural())}")
    seen = look(model, shape)
    return inspected(seen, names)


def inspected(seen: Seen, names: Sequence[str]) -> Inspection:
    """What there is to say of a network that was looked at."""
    around, shape = Surroundings(seen.view), seen.spec.input.shape
    return Inspection(
        model=seen.name,
        shape=shape,
        nodes=len(seen.view),
        conv_units=len(conv_units(seen.view)),
        residual_units=sum(isinstance(item, ResidualAdd) for item in residual_adds(seen.view)),
        cost=_cost(seen),
        stages=around.sizes,
        leaves=seen.leaves,
        gates=tuple(
            Gate(gate.scope or gate.mul.name, kind_of(gate.projections), around.stage(found), found[0])
            for gate in channel_gates(seen.view)
            if (found := gate.value.shape)
        ),
        offers=tuple(offer(seen.view, name) for name in names),
    )


def offer(view: GraphView, at: str, **options: object) -> Offer:
    """What a placement finds in a graph, as a rule without filters would."""
    given = {"insert": "se", "at": {"placement": at, **options}}
    resolved = resolve(at, load_spec({**_EMPTY, "surgery": [given]}).surgery[0], Surroundings(view))
    return Offer(at, tuple(resolved.sites), tuple(item.reason for item in resolved.rejected))


def look(model: str, shape: Shape | None = None) -> Seen:
    """Build a network and draw its graph; `model` is `timm:NAME`, `torchvision:NAME`, `python:FACTORY`, an ONNX file or
    a spec file.

    Without `shape` the input is the spec's, or what the network was made for where that is known. Values are not
    loaded: what a network offers does not depend on them.
    """
    in_file = Path(model).suffix in (".yaml", ".yml")
    spec = load_spec(Path(model)) if in_file else _named(model)
    network = _built(spec)
    assumed = False
    if shape or not in_file:
        usual = shape or _usual_shape(spec, network)
        assumed = usual is None
        spec = spec.model_copy(update={"input": Input(shape=usual or _assumed_shape(network))})
    try:
        sight = _look(spec, network)
    except SesurgeryError as error:
        advice = {"SE304": "give the input's shape: --shape CHANNELS,HEIGHT,WIDTH"}
        told = [replace(item, hint=advice.get(item.code, item.hint)) for item in error.diagnostics]
        places = {"SE304": ("input", "shape"), "SE306": ("model", "submodule"), "SE403": ("model", "name")}
        raise located(type(error)(told), {code: spec.span(*place) for code, place in places.items()}) from error
    return Seen(model, spec, network, sight.view, sight.leaves, assumed)


def structural() -> tuple[str, ...]:
    """The placements that find their sites in the structure alone, without options, the standard one first."""
    missing = dataclasses.MISSING
    names = [
        name
        for name in PLACEMENTS.names()
        if all(
            item.default is not missing or item.default_factory is not missing
            for item in dataclasses.fields(PLACEMENTS.load(name))  # type: ignore[arg-type]
        )
    ]
    order = ("residual", "pre", "post", "identity", "inner", "concat", "conv")
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


def draw(planned: Planned, out: Path, *, force: bool = False) -> Path:
    """Write the picture of a plan on its network as an SVG file; raises SE405 where another file is there."""
    claim(out, needs=files_of(planned.spec), ours=marked(MARK), force=force)
    name, model = planned.spec.name, planned.spec.model.name.rpartition(":")[2]
    write_text(out, to_svg(planned.view, planned.plan, name if name == model else f"{name} ({model})"))
    return out


def _built(spec: Spec) -> Network:
    if isinstance(spec.model, OnnxModel):
        from sesurgery.onnxgraph import io as onnx_io
        from sesurgery.pipeline.onnx import source_file

        return onnx_io.load(source_file(spec))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sources.build(spec, weights=False)


def _look(spec: Spec, network: Network) -> Sight:
    """The graph of a network, and what of it was taken as a whole."""
    if not isinstance(network, nn.Module):
        from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

        return OnnxSurgeon(spec.input.shape).look(network)
    return surgeon_for(spec).look(network)


def _cost(seen: Seen) -> Cost:
    if not isinstance(seen.network, nn.Module):
        from sesurgery.networks import onnx_cost

        return onnx_cost.cost(seen.network, seen.spec.input.shape)
    return cost(surgeon_for(seen.spec).part(seen.network), seen.spec.input.shape)


_EMPTY = {
    "version": 1,
    "model": {"source": "python", "name": "given:model"},
    "input": {"shape": [3, 224, 224]},
    "surgery": [{"insert": "se", "at": "residual"}],
}


def _named(model: str) -> Spec:
    """The spec of a network that is given by its source and name, or by its ONNX file."""
    if Path(model).suffix == ".onnx":
        return load_spec({**_EMPTY, "model": {"source": "onnx", "name": model}})
    source, colon, name = model.partition(":")
    if not colon or source not in SOURCES:
        hint = f"write timm:{model}, torchvision:{model}, python:package.module:factory, or name an ONNX file or a spec"
        raise fail("SE301", f"{model!r} does not say where the network comes from", hint)
    return load_spec({**_EMPTY, "model": {"source": source, "name": name}})


def _usual_shape(spec: Spec, network: Network) -> Shape | None:
    """The input that the network was made for, by its own account or by that of its published weights."""
    if not isinstance(network, nn.Module):
        from sesurgery.onnxgraph import shapes as onnx_shapes

        return onnx_shapes.image_shape(network)
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    if (size := config.get("input_size")) is not None:
        return int(size[0]), int(size[1]), int(size[2])
    if spec.model.source != "torchvision":
        return None
    from torchvision.models import get_model_weights

    published = next(iter(get_model_weights(spec.model.name)), None)
    side = getattr(published and published.transforms, "keywords", {}).get("crop_size")
    return (3, side, side) if isinstance(side, int) else None


def _assumed_shape(network: Network) -> Shape:
    parts = network.modules() if isinstance(network, nn.Module) else ()
    first = next((part for part in parts if isinstance(part, nn.Conv2d)), None)
    return (first.in_channels if first else 3), 224, 224
