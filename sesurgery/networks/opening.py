"""Opening the network that a spec or a command line names. Nobody above asks what it is made of."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sesurgery.diagnostics import SesurgeryError, fail, located
from sesurgery.graph import Shape
from sesurgery.networks import sources
from sesurgery.networks.opened import OpenNetwork
from sesurgery.networks.torch_network import TorchNetwork, assumed_shape, usual_shape
from sesurgery.spec import NamesModel, Spec
from sesurgery.spec.model import OnnxModel

if TYPE_CHECKING:
    from sesurgery.networks.onnx_network import OnnxNetwork


def open_own(spec: Spec) -> OpenNetwork:
    """The spec's own network, with values from its seed; raises as `sources.build` does, of a file SE402 or SE602."""
    if isinstance(spec.model, OnnxModel):
        return open_file(spec, spec.input.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        named = sources.build_named(spec)
    file = sources.weights_file(spec)
    return TorchNetwork(named.module, spec.input.shape, spec.model.submodule, weights=file, head=named.head)


def open_structure(given: NamesModel, shape: Shape | None = None) -> OpenNetwork:
    """A named network for its structure alone: pretrained values are not loaded.

    Without `shape` the input is what the network was made for, and where that is not known it is assumed.
    """
    if isinstance(given.model, OnnxModel):
        return open_file(given, shape)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = sources.build(given, weights=False)
    found = shape or usual_shape(given, module)
    return TorchNetwork(module, found or assumed_shape(module), given.model.submodule, assumed=found is None)


def open_file(given: NamesModel, shape: Shape | None = None, file: Path | None = None) -> OnnxNetwork:
    """The network of an ONNX file, by default of the one that is named; what lies beside the file is not loaded."""
    from sesurgery.networks import onnx_network
    from sesurgery.onnxgraph import io as onnx_io
    from sesurgery.onnxgraph import shapes

    named = file is None and isinstance(given.model, OnnxModel)
    keys = onnx_network.NAMED_KEYS if named else onnx_network.SHAPE_KEY
    try:
        model = onnx_io.load(file or source_file(given), weights=False)
    except SesurgeryError as error:
        raise located(error, {code: given.span(*place) for code, place in keys.items()}) from error
    found = shape or shapes.image_shape(model)
    return onnx_network.OnnxNetwork(model, found or (3, 224, 224), assumed=found is None, named=named)


def source_file(given: NamesModel) -> Path:
    """The ONNX file that is named; raises SE302 if the network is another kind."""
    if not isinstance(given.model, OnnxModel):
        text = f"the spec's network comes from {given.model.source}, not from an ONNX file"
        raise fail("SE302", text, "name the file with --onnx", span=given.span("model", "source"))
    return given.folder / given.model.name


def files_of(spec: Spec) -> tuple[Path, ...]:
    """The files that a spec needs: its own, its weights, and its ONNX file with external data."""
    from sesurgery.onnxgraph import io as onnx_io

    own = spec.span()
    found = [Path(own.file)] if own else []
    if isinstance(spec.model, OnnxModel):
        found += onnx_io.files(source_file(spec))
    elif spec.model.checkpoint:
        found.append(spec.folder / spec.model.checkpoint.file)
    return tuple(found)
