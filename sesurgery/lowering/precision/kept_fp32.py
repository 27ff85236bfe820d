"""Why nodes stay in fp32 when a network is converted: the reasons as edits, and a line that counts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import NodeProto

from sesurgery.lowering.base import Edit
from sesurgery.onnxgraph.scopes import named
from sesurgery.reasons import Reason, by_kind

IN_SHORT = {
    "gate": "in the gate of squeeze",
    "a_gate": "in a gate",
    "squeeze": "the squeeze of a gate",
    "few_operations": "{figure} has few operations",
    "not_in_onnx": "{figure} not in 16 bits by ONNX",
    "large_weight": "with weights that are too large",
    "large_value": "with values that are too large",
    "unknown_range": "of unknown range",
    "infinite": "infinite on some samples",
    "computed_factor": "{figure} with computed factors",
}
"""Texts for the kinds whose own texts name nodes or numbers."""


def in_gate(node: str, squeeze: str) -> Reason:
    return Reason("gate", node, f"in the gate of squeeze {squeeze!r}: its error would scale a whole map")


def asked_for(node: NodeProto, globs: Sequence[str]) -> Reason | None:
    """The reason for a node in a module that the user keeps in fp32."""
    glob = named(node, globs)
    return None if glob is None else named_in(node.name, glob)


def named_in(where: str, glob: str) -> Reason:
    """The reason for an operation whose module a glob of `keep_fp32` matches."""
    return Reason("asked", where, f"keep_fp32 names {glob!r}", glob)


def computed(node: NodeProto, precision: str) -> Edit:
    """The edit of a converted node."""
    return Edit(node.name, f"{node.op_type} computes in {precision}", changed=True, kind="computed")


def left(reason: Reason) -> Edit:
    """The edit of a node that was not converted."""
    return Edit(reason.where, reason.text, changed=False, kind=reason.kind, figure=reason.figure)


def summary(kept: Iterable[Reason]) -> str:
    """How many nodes were kept for which kind of reason."""
    groups = [(len(group), group[0]) for group in by_kind(kept)]
    return ", ".join(f"{count} {_short(first)}" for count, first in groups)


def _short(reason: Reason) -> str:
    words = IN_SHORT.get(reason.kind)
    return reason.text if words is None else words.format(figure=reason.figure)
