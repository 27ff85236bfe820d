"""A graph without some of its modules, and what a graph moves."""

import numpy as np
import onnx
import pytest
import torch
from timm.layers import SEModule

from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.traffic import traffic
from sesurgery.onnxgraph.without import without

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def blocks(small_se):
    return [name for name, module in small_se.named_modules() if isinstance(module, SEModule)]


def answers(model):
    return numerics.runner(model)({model.graph.input[0].name: IMAGES})[model.graph.output[0].name]


def test_a_graph_without_blocks_computes_what_the_network_does_without_them(small_se, small_se_onnx, blocks):
    model = onnx.load(small_se_onnx)
    left = [blocks[1], blocks[3]]
    handles = [small_se.get_submodule(name).register_forward_hook(lambda _, given, made: given[0]) for name in left]
    with torch.inference_mode():
        expected = small_se(torch.from_numpy(IMAGES)).numpy()
    for handle in handles:
        handle.remove()
    found = without(model, left)
    assert np.allclose(answers(found), expected, atol=1e-4)
    assert len(model.graph.node) > len(found.graph.node)
    assert not [tensor.name for tensor in found.graph.initializer if tensor.name.startswith(tuple(left))]


def test_no_module_left_out_leaves_the_function(small_se_onnx):
    model = onnx.load(small_se_onnx)
    assert np.array_equal(answers(without(model, ())), answers(model))


@pytest.mark.parametrize("module", ["nowhere", "layer1"])
def test_a_module_that_is_not_there_or_has_several_ends_is_refused(small_se_onnx, module, blocks):
    model = onnx.load(small_se_onnx)
    if module == "layer1":
        # Its input is read by a shortcut as well, and still it has one input and one output.
        assert without(model, (module,)).graph.node
        return
    with pytest.raises(SesurgeryError, match="0 inputs and 0 outputs"):
        without(model, (module,))


def test_traffic_counts_inputs_weights_and_outputs_at_the_batch():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N,4] x) => (float[N,2] y) <float[4,2] w> '
        "{ y = MatMul(x, w) }"
    )
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 2), np.float32), "w"))
    assert traffic(model, 3) == 4 * (3 * 4 + 4 * 2 + 3 * 2)
