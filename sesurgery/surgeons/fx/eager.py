"""Compiled parts of a network run as the code that they were compiled from while surgery looks at them."""

from __future__ import annotations

import contextlib

import torch
from torch import nn


def eagerly(network: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Within it nothing is compiled: torch.compile would compile what watches the parts, too, and what it sees once."""
    if any(hasattr(module, "_orig_mod") for module in network.modules()):
        # Only then: it takes torch's compiler, which takes seconds to import.
        stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return stance
    return contextlib.nullcontext()
