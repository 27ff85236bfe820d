"""Convert a network's graph to channels-last, the layout of this compiler's convolutions."""

from __future__ import annotations

import torch
from torch import fx

from sesurgery.lowering.fx.graph import aten


def channels_last(module: fx.GraphModule) -> None:
    """Convert the input image and the weights of the convolutions; the graph is changed in place."""
    for node in [node for node in module.graph.nodes if node.op == "placeholder"]:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dim() == 4:
            with module.graph.inserting_after(node):
                made = module.graph.call_function(aten.clone.default, (node,), {"memory_format": torch.channels_last})
            made.meta["val"] = value.contiguous(memory_format=torch.channels_last)
            node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
    for weight in (*module.parameters(), *module.buffers()):
        # With one channel both layouts have the same bytes, and torch 2.15 reads such frozen weights wrongly if the
        # batch is dynamic.
        if weight.dim() == 4 and weight.shape[1] > 1:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    module.recompile()
