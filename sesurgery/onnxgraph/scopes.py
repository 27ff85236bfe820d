"""The module that an ONNX node came from, if the file has it.

torch's exporter folds a batch norm into the convolution before it, and the convolution then has the norm's path: only
the name of its weight still names the convolution. Other nodes have their path in metadata
(`pkg.torch.onnx.name_scopes`), or in the node's name in files of torch's older exporter. Other files have no module
paths.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from onnx import NodeProto

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
_SLICE = re.compile(r"\.?slice\([^()]*\)")


def of_metadata(node: NodeProto) -> str | None:
    """The module path that torch.onnx wrote beside the node, or None."""
    for entry in node.metadata_props:
        if entry.key == NAME_SCOPES:
            try:
                listed = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return None
            # The root's empty path comes first, the operation's own name last.
            paths = [part for part in listed[:-1] if isinstance(part, str)] if isinstance(listed, list) else []
            # `self.layers[:-1]` is a Sequential of its own to the exporter; its parts keep their names in it.
            return _SLICE.sub("", paths[-1]).removeprefix(".") if paths else ""
    return None


def of_name(node: NodeProto) -> str | None:
    """The module path in a name like `/layer1/layer1.0/conv1/Conv`, or None.

    A child of a Sequential repeats its parent's own name: `/features/features.1/block/block.0/Conv` is
    `features.1.block.0`.
    """
    if not node.name.startswith("/") or not node.name.rpartition("/")[2].startswith(node.op_type):
        return None
    path, last = "", ""
    for part in node.name.split("/")[1:-1]:
        if last and part.startswith(last + "."):
            path = path[: len(path) - len(last)] + part
        else:
            path = f"{path}.{part}" if path else part
        last = part
    return path


def scope_of(node: NodeProto) -> str | None:
    """The module path of a node from any of these; None if there is none."""
    found = of_metadata(node)
    return of_name(node) if found is None else found


def named(node: NodeProto, globs: Sequence[str]) -> str | None:
    """The first glob that matches the node's module or a parent of it, or None."""
    scope = scope_of(node)
    return None if scope is None else matching(scope, globs)


def matching(scope: str, globs: Sequence[str]) -> str | None:
    """The first glob that matches a module's path or a parent of it, or None."""
    return next((glob for glob in globs if fnmatchcase(scope, glob) or fnmatchcase(scope, f"{glob}.*")), None)


def of_weight(name: str) -> str | None:
    """The module path in a weight's name like `layer1.0.conv1.weight`, or None."""
    path, dot, leaf = name.rpartition(".")
    return path if dot and leaf == "weight" and ":" not in path and "/" not in path else None


def plain(path: str) -> str:
    """A path without spaces, because the text form of a graph ends a scope at a space."""
    return "".join(path.split())
