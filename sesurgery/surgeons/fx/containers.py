"""Containers of a changed network: they can be indexed, counted and walked through as before, and not be run.

torch.fx makes a plain module of every module that its graph does not call itself. For a container that would lose what
it is there for, `network.layer2[0]`. Its own forward would pass over the blocks, so that is what it does not get back.
"""

from __future__ import annotations

from typing import Any

from torch import nn


class Parts(nn.Sequential):
    """What a Sequential holds, in its order; the graph of the whole network calls each part."""

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raise: run one after the other, the parts would pass over the blocks between them."""
        raise NotImplementedError(
            "a changed network runs as a whole: this container's parts are called one by one from its graph, "
            "with the blocks between them"
        )


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Sequential: Parts,
    Parts: Parts,
    nn.ModuleList: nn.ModuleList,
    nn.ModuleDict: nn.ModuleDict,
}


def restore(copied: nn.Module, original: nn.Module) -> None:
    """Let the plain module that stands for a container be one again.

    Not for one that holds a block itself: the block would be counted among its parts.
    """
    kind = _KINDS.get(type(original))
    if kind is not None and type(copied) is nn.Module:
        # Its tables are those of any module, so the class is all there is to change.
        copied.__class__ = kind
