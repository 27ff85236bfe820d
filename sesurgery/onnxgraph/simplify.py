"""An ONNX file simplified: what does not depend on the input computed once, and only nodes that do something left.

Exporters compute sizes in the graph (`Shape`, `Gather`, `Concat`, `Reshape`), keep weights in Constant nodes and behind
Identity, spread one weight by a Reshape at each use. Runtimes fold all that when they load the file; whoever looks for
patterns must do the same first. onnxscript folds, one node after another, so that a size that was folded helps to infer
the shape of the next value.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from sesurgery.muting import muted
from sesurgery.onnxgraph.io import LIMIT
from sesurgery.onnxgraph.nodes import name_nodes
from sesurgery.onnxgraph.repair import free_weights, repaired

LARGEST_READ, LARGEST_MADE = 2**24, 2**20
"""Numbers of a constant that is folded, and of one that is made where it takes more room than what it is made from."""


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the same function; files over 2 GiB are only repaired.

    Names of values, nodes and weights that are left, and what stands beside them, stay. Functions are inlined.
    """
    copy = repaired(model)
    free_weights(copy)
    if copy.ByteSize() > LIMIT:
        return copy
    before = _same_words(copy)
    graph = ir.from_proto(copy)
    if graph.functions:
        common.InlinePass()(graph)
    fold(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    common.IdentityEliminationPass()(graph)
    common.RemoveUnusedNodesPass()(graph)
    done: onnx.ModelProto = ir.to_proto(graph)
    del done.graph.value_info[:]
    done.graph.value_info.extend(copy.graph.value_info)
    name_nodes(done.graph)
    # What is the same stays as it was written, byte for byte.
    return copy if _same_words(done) == before else done


def fold(graph: ir.Model) -> None:
    """Compute every node whose inputs are known, sizes of known shapes among them; a node that fails stays."""
    from onnxscript.optimizer import fold_constants

    with muted("onnxscript"):
        fold_constants(graph, onnx_shape_inference=True, input_size_limit=LARGEST_READ, output_size_limit=LARGEST_MADE)


def _same_words(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    return [(node.op_type, node.name, tuple(node.input), tuple(node.output)) for node in model.graph.node]
