"""PyTorch to ONNX: the file is valid, takes any batch, computes the same, and tells nothing about this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.export import export
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.spec.export import Export

SHAPE = (3, 16, 16)
SPEC = {
    "version": 1,
    "model": {"source": "python", "name": "sesurgery.networks.cifar_resnet:CifarResNet", "kwargs": {"depth": 8}},
    "input": {"shape": list(SHAPE)},
    "surgery": [{"insert": {"block": "se", "reduction": 4}, "at": "residual"}],
}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> nn.Module:
    """A network with blocks, in eval mode, whose norms have statistics of their own."""
    folder = tmp_path_factory.mktemp("apply")
    changed = pipeline.apply(pipeline.load_spec(SPEC), pipeline.Workspace(folder), "spec").network
    with torch.no_grad():
        for index in range(3):
            changed(torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(index)))
    return changed.eval()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    export(network, SHAPE, path, Export())
    return path


def test_the_checker_takes_the_file(exported):
    onnx.checker.check_model(exported, full_check=True)


def test_the_file_names_its_input_its_output_and_a_free_batch(exported):
    graph = onnx.load(exported).graph
    described = [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*graph.input, *graph.output)
    ]
    assert described == [("input", ["batch", 3, 16, 16]), ("logits", ["batch", 10])]


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_any_batch_gives_the_models_answers(batch, exported, network):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(session.run(None, {"input": x.numpy()})[0] - expected).max() < 1e-5


def test_the_blocks_are_in_the_file_under_their_own_scopes(exported):
    model = onnx.load(exported)
    scopes = "\n".join(
        entry.value
        for node in model.graph.node
        for entry in node.metadata_props
        if entry.key == "pkg.torch.onnx.name_scopes"
    )
    for layer in (1, 2, 3):
        assert f"'layer{layer}.0.se'" in scopes or f"layer{layer}.0.se." in scopes
    assert {initializer.name for initializer in model.graph.initializer} >= {
        f"layer{layer}.0.se.{name}" for layer in (1, 2, 3) for name in ("fc1.weight", "fc2.weight")
    }


def test_nodes_keep_nothing_but_their_scopes(exported):
    nodes = onnx.load(exported).graph.node
    assert {entry.key for node in nodes for entry in node.metadata_props} == {"pkg.torch.onnx.name_scopes"}
    assert not any(node.doc_string for node in nodes)


def test_no_path_of_this_machine_is_in_the_file(exported):
    content = exported.read_bytes()
    for path in (
        sys.prefix,
        os.getcwd(),
        str(Path.home()),
        str(Path(torch.__file__).parent),
        str(Path(__file__).parent),
    ):
        assert path.encode() not in content


def test_the_report_says_how_far_each_batch_was_off(network, tmp_path):
    report = export(network, SHAPE, tmp_path / "net.onnx", Export(check_batches=(1, 4), opset=18))
    assert list(report.differences) == [1, 4]
    assert 0 <= report.worst < 1e-5
    assert report.opset == onnx.load(tmp_path / "net.onnx").opset_import[0].version == 18
    assert report.nodes == len(onnx.load(tmp_path / "net.onnx").graph.node)


class Several(nn.Module):
    """Puts out a list, as networks that are supervised at several depths do; its second may be another every time."""

    def __init__(self, drifts: bool) -> None:
        super().__init__()
        self.calls = 0
        self.drifts = drifts
        self.one, self.other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.calls += self.drifts
        return [self.one(x), self.other(x) + self.calls]


def test_all_outputs_of_a_network_are_compared(tmp_path):
    assert export(Several(drifts=False), SHAPE, tmp_path / "net.onnx", Export()).worst < 1e-5
    with pytest.raises(SesurgeryError, match="differs from the model by"):
        export(Several(drifts=True), SHAPE, tmp_path / "other.onnx", Export())


class Large(nn.Module):
    """Puts out large values, as a network does whose gates were left out; a small one beside them may be wrong."""

    def __init__(self, drifts: bool) -> None:
        super().__init__()
        self.calls = 0
        self.drifts = drifts
        self.convs = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.calls += self.drifts
        return [1e5 * self.convs(x), x.mean((2, 3)) + 0.01 * self.calls]


def test_rounding_is_judged_by_the_size_of_what_is_rounded(tmp_path):
    torch.manual_seed(0)
    assert export(Large(drifts=False), SHAPE, tmp_path / "net.onnx", Export()).worst > 1e-4
    with pytest.raises(SesurgeryError, match=r"differs from the model by 0\.0\d+, allowed are 0\.0001"):
        export(Large(drifts=True), SHAPE, tmp_path / "other.onnx", Export())
    with pytest.raises(SesurgeryError, match=r"by \S+ where its largest value is \S+e\+\d+, allowed are \S+"):
        export(Large(drifts=False), SHAPE, tmp_path / "other.onnx", Export(max_abs=1e-12))


class Drifts(nn.Module):
    """Adds how often it was called: what is exported is not what is asked later."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.fc(x.mean((2, 3))) + self.calls


class Fixed(nn.Module):
    """Knows the batch of its example only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(2, 4, 6, 6)


class Prints(nn.Module):
    """Needs a value while it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


WRONG = {Drifts: "differs from the model by", Fixed: "does not take a batch of 1", Prints: "cannot export"}


@pytest.mark.parametrize("kind", WRONG)
def test_a_network_that_does_not_survive_export_is_se601_and_leaves_nothing(kind, tmp_path):
    with pytest.raises(SesurgeryError, match=rf"SE601.*{WRONG[kind]}"):
        export(kind(), (4, 6, 6), tmp_path / "net.onnx", Export())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_file_that_was_there(exported, tmp_path):
    target = tmp_path / "net.onnx"
    target.write_bytes(exported.read_bytes())
    with pytest.raises(SesurgeryError, match="SE601"):
        export(Drifts(), (4, 6, 6), target, Export())
    assert target.read_bytes() == exported.read_bytes()


def test_export_keeps_stdout_for_data(network, tmp_path, capfd):
    export(network, SHAPE, tmp_path / "net.onnx", Export())
    assert capfd.readouterr().out == ""


class Attends(nn.Module):
    """Attention over the rows of a map, its tensors with as many dimensions as it is told."""

    def __init__(self, dims: int, masked: bool) -> None:
        super().__init__()
        self.dims, self.masked = dims, masked
        self.qkv = nn.Linear(4, 24)
        self.fc = nn.Linear(8, 2)
        self.mask = nn.Parameter(torch.randn(*[1] * (dims - 2), 9, 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        # [3, batch, window, heads, places, width]
        rows = self.qkv(x.permute(0, 2, 3, 1)).reshape(batch, 4, 9, 3, 2, 4).permute(3, 0, 1, 4, 2, 5)
        query, key, value = (part.flatten(0, 5 - self.dims) if self.dims < 5 else part for part in rows.unbind(0))
        # A mask that is computed, as relative positions are: a plain parameter chooses other kernels.
        mask = self.mask.tanh() if self.masked else None
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out = out.unflatten(0, (-1, 2)) if self.dims < 4 else out
        out = out.transpose(-3, -2).reshape(*out.shape[:-3], 9, 8)
        return self.fc(out.reshape(batch, 36, 8)).mean(1)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("dims", [3, 4, 5])
def test_attention_on_any_number_of_dimensions_with_a_mask_or_without_is_exported(dims, masked, tmp_path):
    network = Attends(dims, masked).eval()
    report = export(network, (4, 6, 6), tmp_path / "net.onnx", Export(check_batches=(1, 3)))
    assert report.worst < 1e-5


def test_a_failure_names_what_stopped_the_exporter_and_not_the_step_it_was_at(tmp_path):
    with pytest.raises(SesurgeryError, match=r"SE601") as caught:
        export(Prints(), (4, 6, 6), tmp_path / "net.onnx", Export())
    assert "Could not guard on data-dependent expression" in str(caught.value)
    assert "Next steps" not in str(caught.value)


def test_a_network_that_one_file_cannot_hold_keeps_its_weights_beside_it(network, tmp_path, monkeypatch):
    export(network, SHAPE, tmp_path / "small.onnx", Export())
    monkeypatch.setattr(onnx_io, "LIMIT", 2000)
    target = tmp_path / "large" / "net.onnx"
    report = export(network, SHAPE, target, Export(check_batches=(1, 4)))
    assert report.worst < 1e-5
    assert sorted(path.name for path in target.parent.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert onnx_io.beside(target) == (tmp_path / "large" / "net.onnx.data",)
    graph = onnx.load(target, load_external_data=False).graph
    assert {entry.key for node in graph.node for entry in node.metadata_props} == {"pkg.torch.onnx.name_scopes"}
    image = np.ones((2, *SHAPE), np.float32)
    large, small = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": image})[0]
        for path in (target, tmp_path / "small.onnx")
    )
    assert np.array_equal(large, small)


def test_a_large_network_that_is_refused_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_io, "LIMIT", 10)
    with pytest.raises(SesurgeryError, match="SE601"):
        export(Drifts(), (4, 6, 6), tmp_path / "net.onnx", Export())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_shrinks_leaves_no_weights_beside_it(network, tmp_path, monkeypatch):
    target = tmp_path / "net.onnx"
    with monkeypatch.context() as small:
        small.setattr(onnx_io, "LIMIT", 2000)
        export(network, SHAPE, target, Export())
    assert onnx_io.beside(target)
    export(network, SHAPE, target, Export())
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


class PaddedPool(nn.Module):
    """Pads negative values with zeros before a max pool, as the stem of BiT does."""

    def __init__(self, pad: nn.Module) -> None:
        super().__init__()
        self.conv, self.pad, self.pool = nn.Conv2d(3, 4, 3), pad, nn.MaxPool2d(3, 2)
        nn.init.constant_(self.conv.bias, -9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.pad(self.conv(x)))


@pytest.mark.parametrize(
    "pad", [nn.ZeroPad2d(1), nn.ConstantPad2d((1, 0, 1, 0), 0.0), nn.ConstantPad2d(1, -20.0), nn.ReflectionPad2d(1)]
)
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_zeros_before_a_max_pool_are_the_maximum_of_negative_values(pad, target, tmp_path):
    network = PaddedPool(pad)
    path = tmp_path / "net.onnx"
    assert export(network, (3, 9, 9), path, Export()).worst < 1e-5
    image = torch.randn(2, 3, 9, 9)
    expected = network(image).detach().numpy()
    if target == "onnxruntime":
        given = onnxruntime.InferenceSession(path).run(None, {"input": image.numpy()})[0]
    else:
        import openvino

        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        given = openvino.Core().compile_model(path, "CPU", exact)(image.numpy())[0]
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(path, full_check=True)
