"""Simplify an ONNX file: compute what does not depend on the input, and remove nodes without effect.

Exporters compute sizes in the graph (`Shape`, `Gather`, `Concat`, `Reshape`), keep weights in Constant nodes and after
Identity, and reshape a weight at each use. Runtimes fold all of this when they load the file, and pattern matching
needs it folded too. onnxscript folds node by node, so a folded size helps to infer the shape of the next value.
"""

from __future__ import annotations

from math import prod

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from sesurgery.diagnostics import clipped, fail, first_line
from sesurgery.muting import muted
from sesurgery.onnxgraph.io import LIMIT
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, name_nodes
from sesurgery.onnxgraph.repair import free_weights, repaired

LARGEST_READ, LARGEST_MADE = 2**24, 2**20
"""Largest input of a folded node, and largest result that may be larger than its inputs, in values."""
LARGEST_FILLED, MOST_AXES = 1024, 16
"""Values of a filled tensor that is folded, and its axes."""


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A simplified copy; files over 2 GiB are only repaired.

    The remaining values, nodes and weights keep their names and metadata. Functions are inlined. Raises SE602 for a
    graph that onnx_ir cannot hold.
    """
    copy = repaired(model)
    free_weights(copy)
    if copy.ByteSize() > LIMIT:
        return copy
    before = _same_words(copy)
    try:
        done = _folded(copy)
    except Exception as error:  # ONNX Runtime runs some files that onnx_ir does not take
        text = f"the ONNX file cannot be simplified: {clipped(first_line(error), 400)}"
        raise fail("SE602", text, "export it again") from error
    del done.graph.value_info[:]
    done.graph.value_info.extend(copy.graph.value_info)
    name_nodes(done.graph)
    # Unchanged nodes stay identical, byte for byte.
    return copy if _same_words(done) == before else done


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    if graph.functions:
        common.InlinePass()(graph)
    fold(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    common.IdentityEliminationPass()(graph)
    common.RemoveUnusedNodesPass()(graph)
    done: onnx.ModelProto = ir.to_proto(graph)
    return done


def fold(graph: ir.Model) -> None:
    """Compute every node with known inputs, including sizes of known shapes; a node that fails is kept."""
    from onnxscript.optimizer import fold_constants

    with muted("onnxscript"):
        fold_constants(
            graph,
            onnx_shape_inference=True,
            input_size_limit=LARGEST_READ,
            output_size_limit=LARGEST_MADE,
            should_fold=_makes_a_few,
        )


def _makes_a_few(node: ir.Node) -> bool | None:
    """True for a ConstantOfShape of a few values, which onnxscript keeps: pads are computed by it; None for others."""
    if (
        node.op_type != "ConstantOfShape"
        or node.domain not in ONNX_DOMAINS
        or not node.inputs
        or node.inputs[0] is None
    ):
        return None
    sizes = node.inputs[0].const_value
    if sizes is None or sizes.size > MOST_AXES:
        return None
    # As whole numbers of Python: a product of sizes of any file may go over 64 bits.
    return True if prod(map(int, sizes.numpy())) <= LARGEST_FILLED else None


def _same_words(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    return [(node.op_type, node.name, tuple(node.input), tuple(node.output)) for node in model.graph.node]
