"""Opening a network by name: both kinds answer alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sesurgery import pipeline, spec
from sesurgery.diagnostics import SesurgeryError, SpecError
from sesurgery.graph import Op
from sesurgery.networks.opened import OpenNetwork
from sesurgery.networks.opening import open_own, open_structure

FACTORY = {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20"}
TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,4,8,8] x) => (float[N,4,8,8] y) {
  c = Conv<pads=[1,1,1,1]>(x, w)
  r = Relu(c)
  d = Conv<pads=[1,1,1,1]>(r, w)
  y = Add(d, r)
}"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w"))
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def of_file(file: Path, shape: tuple[int, int, int]) -> spec.Spec:
    return pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "onnx", "name": str(file)},
            "input": {"shape": list(shape)},
            "surgery": [{"insert": {"block": "se", "reduction": 2}, "at": "residual"}],
        }
    )


def named(model: dict[str, object]) -> spec.GivenModel:
    return spec.load_model(model, pipeline.catalogs())


def test_a_file_and_a_module_tell_their_shape_or_one_is_assumed(file: Path) -> None:
    networks: list[OpenNetwork] = [
        open_structure(named({"source": "onnx", "name": str(file)})),
        open_structure(named(FACTORY)),
        open_structure(named(FACTORY), (3, 32, 32)),
    ]
    assert [(one.shape, one.assumed) for one in networks] == [
        ((4, 8, 8), False),
        ((3, 224, 224), True),
        ((3, 32, 32), False),
    ]


def test_a_changed_copy_of_a_file_is_a_network_like_the_one_before_it(file: Path) -> None:
    given = of_file(file, (4, 8, 8))
    network = open_own(given)
    before = network.view.digest
    changed = network.apply(network.plan(given))
    assert network.view.digest == before
    assert sum(node.op is Op.MUL for node in changed.view) == 1
    assert changed.cost.params == network.cost.params + (4 * 2 + 2) + (2 * 4 + 4)


def test_what_is_wrong_is_told_by_the_keys_of_the_spec(file: Path) -> None:
    network = open_own(of_file(file, (3, 8, 8)))
    with pytest.raises(SesurgeryError) as caught:
        _ = network.view
    assert network.keys[caught.value.diagnostics[0].code] == ("input", "shape")


def test_opening_leaves_the_callers_generator() -> None:
    before = torch.random.get_rng_state()
    open_structure(named(FACTORY), (3, 32, 32))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_mistake_in_a_name_is_told_as_in_a_spec() -> None:
    with pytest.raises(SpecError, match=r"SE104.*model.name: "):
        named({"source": "python", "name": "no_colon"})
