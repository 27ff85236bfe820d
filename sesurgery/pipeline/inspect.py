"""The verb `inspect`: what a network offers, before there is a spec; and a plan as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sesurgery import spec as specs
from sesurgery.artifacts import write_text
from sesurgery.diagnostics import SesurgeryError, fail, located
from sesurgery.drawing.picture import MARK, to_svg
from sesurgery.drawing.priced import priced_svg
from sesurgery.graph import GraphView, Shape
from sesurgery.graph.gates import channel_gates
from sesurgery.graph.idioms import conv_units
from sesurgery.graph.residual import ResidualAdd, residual_adds
from sesurgery.networks.opened import OpenNetwork
from sesurgery.networks.opening import files_of, open_structure
from sesurgery.pipeline.plan import NetworkPlan
from sesurgery.pipeline.specs import catalogs, load_spec
from sesurgery.placements import PLACEMENTS
from sesurgery.placements.base import Placement
from sesurgery.planner.resolve import Surroundings, resolve
from sesurgery.reports.text.inspection import Gate, Inspection, Offer, kind_of
from sesurgery.spec import GivenModel, NamesModel
from sesurgery.spec.model import Model
from sesurgery.workspace.targets import claim, marked

SOURCES = ("timm", "torchvision", "huggingface", "ultralytics", "python")


@dataclass(frozen=True)
class NamedNetwork:
    """A network opened for its structure, with the name that the user gave."""

    name: str
    model: Model
    network: OpenNetwork


def inspect(model: str, shape: Shape | None = None, at: Sequence[str] = ()) -> Inspection:
    """Look at a network; `at` names the placements to try, by default all that need no options."""
    names = tuple(at) or structural()
    for name in names:
        if name not in structural():
            PLACEMENTS.load(name)
            text = f"the placement {name!r} takes options and is not to be found in a structure"
            raise fail("SE105", text, f"structural placements: {', '.join(structural())}")
    return inspection_of(open_named(model, shape), names)


def inspection_of(named: NamedNetwork, names: Sequence[str]) -> Inspection:
    """What a network consists of, and what the named placements find in it."""
    network, view = named.network, named.network.view
    around = Surroundings(view)
    return Inspection(
        model=named.name,
        shape=network.shape,
        nodes=len(view),
        conv_units=len(conv_units(view)),
        residual_units=sum(isinstance(item, ResidualAdd) for item in residual_adds(view)),
        cost=network.cost,
        stages=around.sizes,
        leaves=network.leaves,
        gates=tuple(
            Gate(gate.scope or gate.mul.name, kind_of(gate.projections), around.stage(found), found[0])
            for gate in channel_gates(view)
            if (found := gate.value.shape)
        ),
        offers=tuple(offer(view, name) for name in names),
    )


def offer(view: GraphView, at: str, **options: object) -> Offer:
    """What a placement finds in a graph, without any filters."""
    given = {"insert": "se", "at": {"placement": at, **options}}
    resolved = resolve(at, specs.load_rule(given, catalogs()), Surroundings(view))
    return Offer(at, tuple(resolved.sites), tuple(item.reason for item in resolved.rejected))


def open_named(model: str, shape: Shape | None = None) -> NamedNetwork:
    """Build a network and draw its graph; `model` is `timm:NAME`, `torchvision:NAME`, `huggingface:NAME`,
    `ultralytics:NAME`, `python:FACTORY`, an ONNX file or a spec file.

    Without `shape` the input is the spec's, or what the network was made for where that is known. Values are not
    loaded: what a network offers does not depend on them.
    """
    size = shape and specs.load_shape(shape, catalogs())
    if names_spec(model):
        spec = load_spec(Path(model))
        given: NamesModel = spec
        network = open_structure(spec, size or spec.input.shape)
    else:
        given = _given(model)
        network = open_structure(given, size)
    try:
        _ = network.view
    except SesurgeryError as error:
        advice = {"SE304": "give the input's shape: --shape CHANNELS,HEIGHT,WIDTH"}
        told = [replace(item, hint=advice.get(item.code, item.hint)) for item in error.diagnostics]
        places = {code: given.span(*place) for code, place in network.keys.items()}
        raise located(type(error)(told), places) from error
    return NamedNetwork(model, given.model, network)


def names_spec(model: str) -> bool:
    """Whether this is a spec's file; `ultralytics:yolo11n.yaml` is a network's name."""
    return Path(model).suffix in (".yaml", ".yml") and model.partition(":")[0] not in SOURCES


def structural() -> tuple[str, ...]:
    """The placements that need no options, the standard one first."""
    names = [name for name in PLACEMENTS.names() if _stands_alone(PLACEMENTS.load(name))]
    order = ("residual", "pre", "post", "identity", "inner", "concat", "conv")
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


def _stands_alone(placement: type[Placement]) -> bool:
    """Whether a placement is one without any options."""
    try:
        placement()
    except (TypeError, ValueError):
        return False
    return True


def draw(
    planned: NetworkPlan, out: Path, *, prices: Mapping[str, tuple[float, str]] | None = None, force: bool = False
) -> Path:
    """Write the picture of a plan on its network as an SVG file; raises SE405 if another file is there.

    With `prices` (a number and the words for it, by the blocks' keys) blocks are coloured by what they cost.
    """
    claim(out, needs=files_of(planned.spec), ours=marked(MARK), force=force)
    name, model = planned.spec.name, planned.spec.model.name.rpartition(":")[2]
    title = name if name == model else f"{name} ({model})"
    view, plan = planned.network.view, planned.plan
    write_text(out, to_svg(view, plan, title) if prices is None else priced_svg(view, plan, title, prices))
    return out


def _given(model: str) -> GivenModel:
    """A network that is given by its source and name, or by its ONNX file."""
    if Path(model).suffix == ".onnx":
        return specs.load_model({"source": "onnx", "name": model}, catalogs())
    source, colon, name = model.partition(":")
    if not colon or source not in SOURCES:
        sources = ", ".join(f"{known}:{model}" for known in SOURCES if known != "python")
        hint = f"write {sources}, python:package.module:factory, or name an ONNX file or a spec"
        raise fail("SE301", f"{model!r} does not say where the network comes from", hint)
    return specs.load_model({"source": source, "name": name}, catalogs())
