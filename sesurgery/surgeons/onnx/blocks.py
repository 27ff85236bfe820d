"""Blocks as ONNX: an nn.Module is exported once for each width and set of options, and filled with each site's values.

The exporter runs once per kind of block and keeps every parameter under its own name. Values are put in by name, and
only then is the graph optimised, so that what is folded (a norm into a convolution) is folded with the right values.
Where nothing is folded the optimised graph serves all sites of its kind. Each filled graph is compared with its module
before it is used.

Most blocks have one graph for all widths, which their values decide: before a width is exported, the graphs of others
are tried with values that hide nothing, as an identity start would. Where a graph has its number of channels (in a
shape, as ECA, or as groups, as gather-excite), the other number is put there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sesurgery.diagnostics import fail, first_line
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS
from sesurgery.onnxgraph.opset import OPSET
from sesurgery.onnxgraph.sessions import session
from sesurgery.planner import Site
from sesurgery.surgeons.exporting import quiet_exporter

INPUT, OUTPUT = "x", "y"
# Two images, and a map that is not square: what the exporter is shown must not become a constant.
_BATCH, _SIZES = 2, (6, 10, 12)
"""Time, height and width."""
_CLOSE = 1e-4
_COUNTS = ("value_int", "value_ints", "group")
"""Attributes that may hold a number of channels: of a Constant, and the groups of a depthwise convolution."""


@dataclass(frozen=True)
class _Known:
    """A graph that is exported, its number of channels, and the names of the values that fill it."""

    graph: onnx.ModelProto
    channels: int
    names: set[str]


@dataclass
class Blocks:
    """Exported kinds of blocks; `site` gives one filled graph."""

    _kinds: dict[tuple[object, ...], onnx.ModelProto] = field(default_factory=dict)
    # Optimised graphs by the identity of the exported one; None where optimising folds values.
    _optimised: dict[int, onnx.ModelProto | None] = field(default_factory=dict)
    _known: dict[str, list[_Known]] = field(default_factory=dict)
    """The exported graphs of each set of options."""

    def site(self, site: Site, block: nn.Module) -> onnx.ModelProto:
        """A graph x -> y that computes what `block`, in evaluation, computes at this site.

        Raises SE305 if the block cannot be exported, SE601 if the graph computes something else.
        """
        block.eval()
        with torch.no_grad():
            sample = torch.randn(1, *site.shape, generator=torch.Generator().manual_seed(0)).to(
                next(block.parameters(), torch.empty(0))
            )
            expected = block(sample)
        if expected.shape != sample.shape:
            text = f"{site.key}: the block changes the shape {tuple(sample.shape)} to {tuple(expected.shape)}"
            raise fail("SE305", text, "a block maps [N, C, H, W] to the same shape")
        kind = self._of_another_width(site, block, sample) or self._exported(site, block)
        filled = self._filled(kind, block)
        if any(node.domain not in ONNX_DOMAINS for node in filled.graph.node):
            raise fail(
                "SE305", f"{site.key}: the block needs operators that are not ONNX's own", "choose another block"
            )
        difference = _difference(filled, sample, expected)
        if not difference <= _CLOSE:
            text = f"{site.key}: the exported block differs from the module by {difference:.3g}"
            raise fail("SE601", text, "report this block")
        return filled

    def _filled(self, kind: onnx.ModelProto, block: nn.Module) -> onnx.ModelProto:
        state = _state(block)
        if id(kind) not in self._optimised:
            # Values that are nothing special: what is optimised for them is so for all.
            plain = _plain(state)
            done = _optimised(_fill(kind, plain))
            self._optimised[id(kind)] = done if _holds(done, kind, plain) else None
        shared = self._optimised[id(kind)]
        return _optimised(_fill(kind, state)) if shared is None else _fill(shared, state)

    def _of_another_width(self, site: Site, block: nn.Module, sample: Tensor) -> onnx.ModelProto | None:
        """The graph of another width, where it computes what the block does in this one; None where it has its own."""
        key = (_options(site), site.channels)
        known_graphs = self._known.get(key[0], [])
        if key in self._kinds or not known_graphs:
            return None
        other = copy.deepcopy(block)
        with torch.no_grad():
            _give_ordinary_values(other)
        state = _state(other)
        for known in known_graphs:
            if state.keys() != known.names:
                continue
            made = _of_width(known, site.channels)
            try:
                with torch.no_grad():
                    difference = _difference(_fill(made, state), sample, other(sample))
            except Exception:  # more of the graph than its values and shapes hangs on the width
                continue
            if difference <= _CLOSE:
                self._kinds[key] = made
                return made
        return None

    def _exported(self, site: Site, block: nn.Module) -> onnx.ModelProto:
        free = (_options(site), site.channels)
        fixed = (*free, *site.shape[1:])
        if fixed in self._kinds:
            return self._kinds[fixed]
        if free not in self._kinds:
            try:
                sizes = _SIZES[-len(site.shape[1:]) :]
                self._kinds[free] = _export(block, (_BATCH, site.channels, *sizes), dynamic=True)
                known = _Known(self._kinds[free], site.channels, set(_state(block)))
                self._known.setdefault(free[0], []).append(known)
            except Exception:
                # Some blocks know the size of their map; then each size is a kind of its own.
                try:
                    self._kinds[fixed] = _export(block, (_BATCH, *site.shape), dynamic=False)
                except Exception as error:
                    text = f"{site.key}: torch cannot export the block: {first_line(error)}"
                    raise fail("SE305", text, "choose another block") from error
                return self._kinds[fixed]
        return self._kinds[free]


def _options(site: Site) -> str:
    """What makes blocks of one kind: the block with its options, and whether its maps have time."""
    return f"{site.block!r} {len(site.shape)}"


def _export(block: nn.Module, shape: tuple[int, ...], *, dynamic: bool) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    axes = ("time", "height", "width")[-(len(shape) - 2) :]
    sizes = {at: torch.export.Dim(axis, min=2) for at, axis in enumerate(axes, start=2)} if dynamic else {}
    with quiet_exporter(), torch.random.fork_rng(devices=[]):
        program = torch.onnx.export(
            block,
            (torch.zeros(shape),),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            dynamic_shapes=({0: batch, **sizes},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
        )
    if program is None:
        raise ValueError("the exporter gave no graph")
    model: onnx.ModelProto = program.model_proto
    return model


def _state(block: nn.Module) -> dict[str, NDArray[np.generic]]:
    tensors: dict[str, Tensor] = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def _plain(state: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, values.shape).astype(values.dtype)
        if np.issubdtype(values.dtype, np.floating)
        else values
        for name, values in state.items()
    }


def _optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxscript.optimizer

    with quiet_exporter():
        done: onnx.ModelProto = onnxscript.optimizer.optimize(model)
    return done


def _fill(kind: onnx.ModelProto, state: Mapping[str, NDArray[np.generic]]) -> onnx.ModelProto:
    """A copy of the graph with values under their names."""
    model = onnx.ModelProto()
    model.CopyFrom(kind)
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name], tensor.name))
    return model


def _give_ordinary_values(block: nn.Module) -> None:
    """Weights that keep the size of what they are given, and positive numbers for all else."""
    generator = torch.Generator().manual_seed(1)
    for tensor in (*block.parameters(), *block.buffers()):
        if tensor.is_floating_point() and tensor.dim() > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)


def _of_width(known: _Known, channels: int) -> onnx.ModelProto:
    """A copy of a graph for maps with another number of channels, wherever the graph has that number."""
    model = onnx.ModelProto()
    model.CopyFrom(known.graph)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = channels
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    for attribute in attributes:
        if attribute.name in _COUNTS:
            attribute.i = channels if attribute.i == known.channels else attribute.i
            attribute.ints[:] = [channels if number == known.channels else number for number in attribute.ints]
    for tensor in (*model.graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))):
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1:
            numbers = onnx.numpy_helper.to_array(tensor)
            changed = np.where(numbers == known.channels, channels, numbers)
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    return model


def _holds(model: onnx.ModelProto, kind: onnx.ModelProto, state: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the optimised graph still has every value that the exported one reads, as it was."""
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    read = {tensor.name for tensor in kind.graph.initializer} & state.keys()
    return all(
        name in kept and np.array_equal(onnx.numpy_helper.to_array(kept[name]), state[name]) for name in sorted(read)
    )


def _difference(model: onnx.ModelProto, sample: Tensor, expected: Tensor) -> float:
    (found,) = session(model, threads=1).run([OUTPUT], {INPUT: sample.numpy()})
    reference = expected.numpy()
    if found.shape != reference.shape:
        return float("inf")
    return float(np.abs(found - reference).max() / max(1.0, float(np.abs(reference).max())))
