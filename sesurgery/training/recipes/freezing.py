"""Which weights are frozen, and until which epoch: blocks first, linear probes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sesurgery.diagnostics import fail, suggest
from sesurgery.spec.train import Freeze

BLOCKS, HEAD = "blocks", "head"
"""Words under `trained:` that are no globs."""


@dataclass(frozen=True)
class Frozen:
    """The names of the parameters that stand still until `wanted.epochs` are done, and the modules they belong to."""

    wanted: Freeze
    parameters: frozenset[str]

    def set(self, model: nn.Module, epoch: int) -> None:
        """Freeze or thaw before an epoch, counted from 0. The modes of norms go back to training with a thaw."""
        frozen = self.wanted.epochs is None or epoch < self.wanted.epochs
        for name, parameter in model.named_parameters():
            if name in self.parameters:
                parameter.requires_grad_(not frozen)
        for name, module in model.named_modules():
            # A norm is told by its weight; one without weights has its statistics frozen as well.
            own = [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
            if isinstance(module, _BatchNorm) and (own[:1] == [] or own[0] in self.parameters):
                module.train(not frozen)


def frozen_of(model: nn.Module, wanted: Freeze, blocks: Collection[str], classes: int) -> Frozen:
    """The frozen parameters of a model whose inserted blocks have these paths.

    Raises SE502 if nothing would be trained, or if a glob matches no scope.

    The head is the last module outside of blocks whose weights give one output a class.
    """
    moving: list[str] = []
    for name in wanted.trained:
        moving += (
            list(blocks) if name == BLOCKS else _head(model, blocks, classes) if name == HEAD else _scopes(model, name)
        )
    prefixes = tuple(f"{path}." for path in moving)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not any(name.startswith(prefixes) for name in names):
        text = f"with `freeze: trained: [{', '.join(wanted.trained)}]` nothing is trained: the network has none of them"
        raise fail("SE502", text, "name another part under `trained:`, or take `freeze:` out")
    return Frozen(wanted, frozenset(name for name in names if not name.startswith(prefixes)))


def _head(model: nn.Module, blocks: Collection[str], classes: int) -> list[str]:
    inserted = tuple(f"{path}." for path in blocks)
    heads = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and len(module.weight) == classes
        and not f"{name}.".startswith(inserted)
    ]
    return heads[-1:]


def _scopes(model: nn.Module, glob: str) -> list[str]:
    scopes = [name for name, _ in model.named_modules() if name]
    found = [name for name in scopes if fnmatchcase(name, glob)]
    if not found:
        text = f"`train: freeze: trained:` names {glob!r}, and no scope of the network matches it"
        raise fail("SE502", text, suggest(glob, [BLOCKS, HEAD, *scopes]))
    return found
