"""The shapes of a traced network's values, found without computing anything wherever that is possible."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from sesurgery.accounting import NEEDS_VALUES, casts_forgotten
from sesurgery.diagnostics import fail, first_line
from sesurgery.graph import ConvFacts, Op, Shape
from sesurgery.muting import fake_tensors_muted
from sesurgery.surgeons.fx import ops as fx_ops
from sesurgery.surgeons.fx.causes import what_to_do
from sesurgery.surgeons.fx.copying import duplicate
from sesurgery.surgeons.fx.inputs import Given, image_inputs, mapped, tensors
from sesurgery.surgeons.fx.traced import Trace

Kinds = Mapping[fx.Node, tuple[Op, ConvFacts | None]]


def map_shapes(traced: Trace, shape: Shape) -> dict[str, Shape]:
    """The shape of every map, without its batch, in eval mode; the network stays untouched.

    A map is what has as many dimensions as an image, or in a network of 3-d convolutions as a clip.

    Raises SE304 if it does not take an image of `shape`.
    """
    return measured(traced, image_inputs(traced.root, shape).two, len(shape) + 1).maps


@dataclass(frozen=True)
class Measured:
    """The shapes of a call's maps, and the names of the nodes whose value is a number, a size, a type or a device."""

    maps: dict[str, Shape]
    sizes: frozenset[str]


def measured(traced: Trace, given: Given, dims: int = 4, kinds: Kinds | None = None) -> Measured:
    """What any call's values are, of nodes of these kinds where they are known; raises SE304 if it cannot be made."""
    kinds = {node: fx_ops.kind(node, traced.root) for node in traced.graph.nodes} if kinds is None else kinds
    try:
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as fake, casts_forgotten():
                return _run(_Shapes(traced.root, traced.graph, kinds, fake, dims), given)
        except NEEDS_VALUES:
            # A leaf that looks at its data has nothing to look at in a fake tensor.
            return _run(_Shapes(duplicate(traced.root), traced.graph, kinds, None, dims), given)
    except Exception as error:
        sizes = [tuple(tensor.shape[1:]) for tensor in tensors(given.args)]
        size = "x".join(map(str, sizes[0])) if sizes else "no tensor"
        text = f"the network does not take an input of {size}: {first_line(error)}"
        raise fail("SE304", text, what_to_do(error)) from error


def _run(shapes: _Shapes, given: Given) -> Measured:
    bound = given.bound(inspect.signature(shapes.module.forward))
    values = []
    for node in shapes.graph.nodes:
        if node.op == "placeholder":
            name = str(node.target).lstrip("*")
            values.append(mapped(bound[name], _zeros) if name in bound else node.args[0] if node.args else None)
    with torch.no_grad(), warnings.catch_warnings(), fake_tensors_muted():
        warnings.simplefilter("ignore")
        shapes.run(*values)
    return Measured(shapes.found, frozenset(shapes.sizes))


def _is_size(value: object) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_size, value))
    return isinstance(value, bool | int | float | str | torch.dtype | torch.device)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)


class _Shapes(fx.Interpreter):
    """Runs a graph over copies of the modules that it calls, and writes down the shapes.

    Given a fake mode, nothing is run whose shape is known beforehand, which is most of a network: then values of one
    shape may be one tensor.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, kinds: Kinds, fake: FakeTensorMode | None, dims: int) -> None:
        super().__init__(root, graph=graph)
        self._kinds = kinds
        self.dims = dims
        self.found: dict[str, Shape] = {}
        self.sizes: set[str] = set()
        self._fake = fake
        self._foresees = fake is not None and not any(_reshapes_in_place(node) for node in graph.nodes)
        self._convolved: dict[tuple[object, ...], Tensor] = {}
        self._memo: dict[int, object] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = self._foreseen(n) if self._foresees else None
        result = super().run_node(n) if result is None else result
        if isinstance(result, Tensor) and result.dim() == self.dims:
            self.found[n.name] = tuple(map(int, result.shape[1:]))
        elif n.all_input_nodes and n.op != "output" and _is_size(result):
            self.sizes.add(n.name)
        return result

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # The mode is read as an attribute, and the network itself is not switched over.
        if str(target).rpartition(".")[2] == "training":
            return False
        value = super().get_attr(target, args, kwargs)
        return self._stand_in(value) if isinstance(value, Tensor) else value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        module = self.module.get_submodule(str(target))
        # One memory for all copies: modules that share a part share its copy.
        self._memo |= {id(tensor): self._stand_in(tensor) for tensor in module.buffers()}
        self._memo |= {id(part): part for part in module.parameters()}
        # A module may keep tensors that are neither: in fake mode they cannot be copied.
        with unset_fake_temporarily():
            copied: nn.Module = copy.deepcopy(module, self._memo)
        # A train() of the author's own may forget to give the module back.
        copied.eval()
        return copied(*args, **kwargs)

    def _stand_in(self, tensor: Tensor) -> Tensor:
        """A tensor in whose place nothing can be written to the network's."""
        return self._fake.from_tensor(tensor) if self._fake else tensor

    def _foreseen(self, n: fx.Node) -> Tensor | None:
        """The output of what keeps the shape, or of a plain convolution; None if it has to be run."""
        kind, facts = self._kinds[n]
        if kind not in _FORESEEN:
            return None
        values = [self.env[source] for source in n.all_input_nodes]
        if not values or not all(isinstance(value, Tensor) and value.is_contiguous() for value in values):
            return None
        first: Tensor = values[0]
        if kind in (Op.ADD, Op.MUL):
            alike = all((value.shape, value.dtype, value.device) == _like(first) for value in values)
            return first if alike and len(n.args) == len(values) == 2 and not n.kwargs else None
        if len(values) != 1:
            return None
        if facts is None:
            return first if n.op == "call_module" or kind is Op.ACT else None
        conv = self.module.get_submodule(str(n.target))
        if not _is_plain(conv, first) or n.kwargs:
            return None
        size = _size(conv, facts, first)
        if min(size) < 1:
            return None
        known = (size, *_like(first)[1:])
        if known not in self._convolved:
            self._convolved[known] = first.new_empty(size)
        return self._convolved[known]


_FORESEEN = (Op.NORM, Op.ACT, Op.PASS, Op.ADD, Op.MUL, Op.CONV)
_RESHAPING = ("squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "as_strided_", "set_")


def _reshapes_in_place(node: fx.Node) -> bool:
    name = str(getattr(node.target, "__name__", node.target))
    return node.op in ("call_method", "call_function") and (name in _RESHAPING or name.startswith("resize_"))


def _like(value: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return value.shape, value.dtype, value.device


def _is_plain(conv: nn.Module, value: Tensor) -> TypeGuard[nn.Conv2d]:
    """Whether it is torch's own convolution, that would take the value."""
    if type(conv) is not nn.Conv2d or conv._forward_hooks or conv._forward_pre_hooks or "forward" in vars(conv):
        return False
    weight = conv.weight
    if (weight.dtype, weight.device) != (value.dtype, value.device) or not weight.is_contiguous():
        return False
    return value.dim() == 4 and value.shape[1] == conv.in_channels and conv.padding_mode == "zeros"


def _size(conv: nn.Conv2d, facts: ConvFacts, value: Tensor) -> tuple[int, int, int, int]:
    """The size of a convolution's output, by the formula of its documentation."""
    spread = [step * (size - 1) for step, size in zip(facts.dilation, facts.kernel, strict=True)]
    # 'same' may pad one side more than the other.
    pads = spread if conv.padding == "same" else [2 * pad for pad in facts.padding]
    high, wide = (
        (size + pad - reach - 1) // stride + 1
        for size, pad, reach, stride in zip(value.shape[2:], pads, spread, facts.stride, strict=True)
    )
    return value.shape[0], conv.out_channels, high, wide
