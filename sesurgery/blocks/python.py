"""The user's own block: a factory that gets the channel count and returns a module that keeps the shape.

The named module is imported, which runs its code: only name what you trust.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.blocks.base import Block
from sesurgery.catalog import import_object
from sesurgery.spec.code import Factory

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Python(Block):
    """`factory: "package.module:make"`, called as `make(channels, **kwargs)`."""

    factory: Factory
    kwargs: dict[str, bool | int | float | str | None] = field(default_factory=dict)

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        try:
            factory: Any = import_object(self.factory, (Path.cwd(),))
        except (ImportError, AttributeError) as error:
            raise ValueError(f"the factory {self.factory!r} cannot be imported: {error}") from error
        block = factory(channels, **self.kwargs)
        if not isinstance(block, nn.Module):
            raise ValueError(f"the factory {self.factory!r} returned {type(block).__name__}, not a torch.nn.Module")
        return block


EXAMPLES = (Python("torch.nn:InstanceNorm2d"), Python("torch.nn:BatchNorm2d", {"eps": 1e-3}))
