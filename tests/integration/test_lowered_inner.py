"""SE inside the unit: on the 3x3 of a bottleneck, behind its activation (`inner`) and before it, in groups too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import timm
import torch
from torch import nn

import sesurgery
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.lowering import load
from sesurgery.lowering.base import Lowered, run
from sesurgery.networks.export import export
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.spec.export import Export

BACKEND = TensorRTForRTX()
REASON = BACKEND.probe().builds
pytestmark = pytest.mark.slow
SIZE = 224


@dataclass(frozen=True)
class Case:
    """A network, where SE stands in it, how many of its 16 squeezes are hoisted, and the traffic over the exported."""

    network: str
    at: str | dict[str, str]
    hoisted: int
    reason: str
    ratio: float


# Before the activation: behind the norm that the exporter folds into the convolution.
BEFORE = {"placement": "module", "names": "layer*.bn2"}
CASES = {
    # Measured 132.2 MB of 142.7: the layout alone.
    "inner": Case("resnet50", "inner", 0, "comes from Relu", 0.94),
    # Measured 122.8 MB of 142.7; 132.2 without squeeze_hoist_spatial.
    "dense": Case("resnet50", BEFORE, 13, "input is larger than its output", 0.88),
    # Measured 156.3 MB of 196.0; 175.2 without squeeze_hoist_spatial.
    "grouped": Case("resnext50_32x4d", BEFORE, 13, "input is larger than its output", 0.81),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def exported(case: Case, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(case.network).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The last norm of a branch starts at zero and would hide it.
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0, 0.1)
        changed = sesurgery.insert(network, at=case.at, example_input=torch.zeros(1, 3, SIZE, SIZE)).eval()
    path = tmp_path_factory.mktemp("inner") / "net.onnx"
    export(changed, (3, SIZE, SIZE), path, Export(check_batches=(1,), max_abs=1e-2))
    return onnx.load(path)


@pytest.fixture(scope="module")
def lowered(exported: onnx.ModelProto) -> Lowered:
    return run(exported, load(BACKEND.passes), verify=True)


def test_what_pays_is_hoisted_and_the_rest_has_its_reason(case: Case, lowered: Lowered) -> None:
    assert sum("3 x 3 taps" in edit.why for edit in lowered.edits if edit.changed) == case.hoisted
    assert sum(case.reason in edit.why for edit in lowered.edits if not edit.changed) >= 16 - case.hoisted


def test_the_outputs_are_what_they_were(exported: onnx.ModelProto, lowered: Lowered) -> None:
    fed = _numerics.feeds(exported, seed=1)
    found = _numerics.outputs(lowered.model, fed)
    assert _numerics.difference(_numerics.outputs(exported, fed), found) < 1e-5


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_less_is_moved_than_as_exported(
    case: Case, exported: onnx.ModelProto, lowered: Lowered, tmp_path: Path
) -> None:
    traffic = []
    for model in (exported, lowered.model):
        onnx.save(model, tmp_path / "net.onnx")
        options = BuildOptions("fp32", BatchRange(1, 1, 1))
        traffic.append(BACKEND.compile_kernels(tmp_path / "net.onnx", options).traffic)
    assert traffic[1] <= case.ratio * traffic[0]
