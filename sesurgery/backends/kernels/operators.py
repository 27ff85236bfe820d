"""The operators of an engine's optimised graphs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Operator:
    """One kernel call; `type` is a convolution's data type, None for other operators and for computed weights.

    `nodes` are the ONNX nodes it executes, as far as its name tells.
    """

    name: str
    kind: str
    type: str | None
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Operators in graph order; `when` says for which batches it runs, empty if it is the only graph."""

    name: str
    when: str
    operators: tuple[Operator, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """How many operators there are of each kind."""
        return dict(Counter(operator.kind for operator in self.operators).most_common())

    @property
    def convolutions(self) -> dict[str, int]:
        """How many convolutions with weights of their own compute in which type."""
        return dict(Counter(operator.type for operator in self.operators if operator.type is not None))
