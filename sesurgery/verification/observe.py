"""Inner values of a torch network on samples: what its modules get and give, seen by hooks that are gone afterwards.

For ONNX files see `onnxgraph.observe`. What the surgeon proves it sees itself: that needs gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from sesurgery.training.evaluation import logits

T = TypeVar("T")
See = Callable[[tuple[Any, ...], Any], T]
"""What is kept of a call: of a module's positional inputs, and of its output, which the next operation may change."""


@contextmanager
def watched(network: nn.Module, modules: Mapping[str, str], see: See[T]) -> Iterator[dict[str, list[T]]]:
    """Within the block, what `see` makes of each call of these modules, by the keys of their paths."""
    found: dict[str, list[T]] = {key: [] for key in modules}
    with ExitStack() as hooks:
        for key, path in modules.items():

            def keep(_: nn.Module, given: tuple[Any, ...], made: Any, key: str = key) -> None:
                found[key].append(see(given, made))

            hooks.callback(network.get_submodule(path).register_forward_hook(keep).remove)
        yield found


def observe(
    network: nn.Module, modules: Mapping[str, str], batches: Iterable[torch.Tensor], see: See[T]
) -> dict[str, list[T]]:
    """What `see` makes of each call of these modules while the network answers batches [n, C, H, W] in eval mode."""
    with watched(network, modules, see) as found:
        logits(network, batches)
    return found
