"""A network as torch exports it for inference: one flat graph of ATen operations, without mutation.

Exporting gives every way of writing a block the same form: a method, a function and a pooling module all become the
same mean, and `out += x` becomes a sum. Therefore passes match operations, never modules.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from sesurgery.diagnostics import fail, first_line
from sesurgery.surgeons.exporting import quiet_exporter

Shape = tuple[int, ...]
aten = torch.ops.aten
RESHAPES = (aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.squeeze.dims, aten.squeeze.dim)
EXAMPLE_BATCH = 2


def capture(network: nn.Module, shape: Shape, batch: tuple[int, int]) -> fx.GraphModule:
    """The network in evaluation as a graph of ATen operations, for batches of the range (smallest, largest).

    Raises SE601 if torch cannot export it, or only for one size of batch.
    """
    program = export(copy.deepcopy(network).cpu().eval(), shape, batch, dtype=_dtype(network))
    # Functional form: in-place operations become ordinary ones, and norms one operation in evaluation mode.
    module: fx.GraphModule = program.run_decompositions({}).module(check_guards=False)
    return module


def export(
    network: nn.Module, shape: Shape, batch: tuple[int, int], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.export.ExportedProgram:
    """torch.export with a dynamic batch, or a fixed one if the range is one size; raises SE601 if it fails."""
    smallest, largest = batch
    # torch would treat a batch of one as a fixed size.
    count = largest if smallest == largest else max(EXAMPLE_BATCH, smallest)
    example = torch.zeros(count, *shape, device=device, dtype=dtype)
    dims = None if smallest == largest else ({0: torch.export.Dim("batch", min=smallest, max=largest)},)
    try:
        with quiet_exporter(), torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=dims)
    except Exception as error:
        raise fail("SE601", f"torch cannot export the network: {first_line(error)}") from error


def _dtype(network: nn.Module) -> torch.dtype:
    return next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape of a node's value, numbers where they are fixed; empty if it is not a tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def spatial(node: fx.Node) -> tuple[int, int, int] | None:
    """C, H, W of a map whose sizes are fixed, or None."""
    dims = shape_of(node)[1:]
    return dims if len(dims) == 3 and all(isinstance(size, int) for size in dims) else None


def constant(module: fx.GraphModule, node: object) -> Tensor | None:
    """The weight that a node reads, or None if it is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value.detach() if isinstance(value, Tensor) else None


def add_constant(module: fx.GraphModule, before: fx.Node, name: str, value: Tensor) -> fx.Node:
    """Add a weight to the graph, read just before a node."""
    stem = name.replace(".", "_")
    number = 0
    while hasattr(module, unique := f"{stem}_{number}" if number else stem):
        number += 1
    module.register_buffer(unique, value.contiguous())
    with module.graph.inserting_before(before):
        made = module.graph.get_attr(unique)
    mode = next(node.meta["val"].fake_mode for node in module.graph.nodes if hasattr(node.meta.get("val"), "fake_mode"))
    made.meta["val"] = mode.from_tensor(value, static_shapes=True)
    return made


def call(module: fx.GraphModule, before: fx.Node, target: Any, *args: Any) -> fx.Node:
    """Add an operation just before a node, with its shape."""
    with module.graph.inserting_before(before):
        made = module.graph.call_function(target, args)
    made.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
    values = fx.node.map_arg(args, lambda node: node.meta["val"])
    made.meta["val"] = target(*values)
    return made


def path_of(node: fx.Node) -> str:
    """The module that a node came from, by its path; the node's own name where that is not known."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        path = entry[0]
    return path.removeprefix("L['self'].").removeprefix("L__self___") or node.name


def clean(module: fx.GraphModule) -> fx.GraphModule:
    """Remove everything that is not read any more."""
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in _names(module):
        if name not in used:
            parent, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(parent), leaf)
    return module


def _names(module: fx.GraphModule) -> Iterator[str]:
    yield from [name for name, _ in module.named_parameters(remove_duplicate=False)]
    yield from [name for name, _ in module.named_buffers(remove_duplicate=False)]
