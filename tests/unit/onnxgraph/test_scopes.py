"""The module paths that an exporter wrote into a file."""

import pytest
from onnx import helper

from sesurgery.onnxgraph.scopes import NAME_SCOPES, of_metadata


@pytest.mark.parametrize(
    ("listed", "path"),
    [
        (["", "layer1", "layer1.0", "layer1.0.conv1", "conv2d"], "layer1.0.conv1"),
        (["", "relu"], ""),
        # As the exporter has them for RT-DETR of Ultralytics, which runs `self.model[:-1]`.
        (["", "model.slice(None, -1, None)", "model.slice(None, -1, None).1", "conv2d"], "model.1"),
        (["", "slice(1, 3, None).2", "slice(1, 3, None).2.act", "relu"], "2.act"),
    ],
)
def test_a_slice_of_modules_is_no_part_of_a_path(listed, path):
    node = helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(key=NAME_SCOPES, value=repr(listed))
    assert of_metadata(node) == path
