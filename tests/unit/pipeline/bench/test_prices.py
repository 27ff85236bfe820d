"""Price lists: of a plan before any training, of a run's engine, and the picture coloured by them."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx.parser
import pytest

from sesurgery import pipeline
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.kernels.compiled import Compiled, Kernel, Tensor
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.openvino import OpenVINO
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.bench import prices, pricing
from sesurgery.pipeline.bench.variants import Listed, Variants, tells_bytes
from sesurgery.reports.text.prices import findings, labels
from sesurgery.spec.latency import Latency
from sesurgery.verification.cost import PRICES
from sesurgery.verification.fresh_process import EngineFile

RUN, FP32 = Path("runs/tiny"), Path("engines/tiny.onnxruntime.fp32.onnx")
KEYS = ["se/layer1.0[0]", "se/layer2.0[0]", "se/layer3.0[0]"]
SHORT = Latency(rounds=10, repeats=1, placements=4, half_width=None, warmup_seconds=0, threads=1)


def test_a_plan_is_priced_without_a_training(here, monkeypatch):
    monkeypatch.setattr(prices, "QUICK", SHORT)
    before = sorted(Path().rglob("*"))
    planned = pipeline.plan(pipeline.load_spec("tiny.yaml"))
    found = pipeline.price_plan(planned, pipeline.engine({"batch": {"max": 4}}))
    assert [block.key for block in found.blocks] == KEYS
    assert not found.trained
    assert found.bytes_of == "layers"
    assert "bytes are those that the layers of the compiled engine read and write" in findings(found)
    for block in found.blocks:
        assert block.kernels > 0
        assert block.bytes > 4 * 2 * block.channels * block.height * block.width
        assert 0 < block.profile < found.whole * 10
        assert block.time.low <= block.time.value <= block.time.high
    assert sorted(Path().rglob("*")) == before
    picture = pipeline.draw(planned, Path("net.svg"), prices=labels(found))
    words = "".join(ElementTree.parse(picture).getroot().itertext())
    assert all(label in words for _, label in labels(found).values())


def test_a_runs_engine_is_priced_block_by_block_and_the_list_kept(here, monkeypatch):
    monkeypatch.setattr(prices, "PER_BLOCK", SHORT)
    found = pipeline.price_engine(FP32)
    assert [block.key for block in found.prices.blocks] == KEYS
    assert {block.alike for block in found.prices.blocks} == {1}
    # All blocks against none, four pairs of halves of three, and one block against none.
    assert (found.prices.pairs, found.prices.placements) == (6, 4)
    assert found.picture.is_file()
    assert PRICES.file(RUN, FP32.name).is_file()


def test_a_backend_that_reads_no_file_has_no_prices(here):
    planned = pipeline.plan(pipeline.load_spec("tiny.yaml"))
    with pytest.raises(SesurgeryError, match="inductor builds from a network of torch"):
        pipeline.price_plan(planned, pipeline.engine({"backend": "inductor"}))


def test_an_nvidia_engine_lists_its_layers_and_has_no_profile_of_them(tmp_path, monkeypatch):
    # The names alone, as an engine has them that was not built with `detailed`.
    monkeypatch.setattr(TensorRTForRTX, "inspected", lambda self, engine: '{"Layers": ["conv", "squeeze", "scale"]}')
    file = EngineFile("whole", "x.engine", {"backend": "tensorrt-rtx"}, 1)
    variants = Variants(onnx.ModelProto(), pipeline.engine({"backend": "tensorrt-rtx"}), {}, 1, tmp_path)
    # Such names tell no bytes, so those of the nodes stand in for them.
    assert variants.listed(file) == Listed(3, None)
    assert not tells_bytes(TensorRTForRTX())
    assert variants.layers(file, 1) is None


def test_the_kernels_of_a_detailed_engine_tell_what_they_move(tmp_path, monkeypatch):
    tensors = (Tensor("x", (-1, 8, 4, 4), "Half"), Tensor("y", (-1, 8, 1, 1), "Float"))
    kernels = (Kernel("squeeze", "myelin", tensors[:1], tensors[1:], ()),)
    monkeypatch.setattr(TensorRTForRTX, "layer_count", lambda self, engine: 1)
    monkeypatch.setattr(TensorRTForRTX, "kernels_of", lambda self, engine, batch: Compiled(kernels, batch))
    wanted = pipeline.engine({"backend": {"backend": "tensorrt-rtx", "detailed": True}})
    file = EngineFile("whole", "x.engine", {"backend": "tensorrt-rtx"}, 1)
    variants = Variants(onnx.ModelProto(), wanted, {"input": np.zeros((2, 3, 8, 8))}, 1, tmp_path)
    assert variants.listed(file) == Listed(1, 2 * (8 * 4 * 4 * 2 + 8 * 4))
    assert tells_bytes(wanted.backend.options)


ADDED = """
<ir_version: 8, opset_import: ["": 17]>
net (float[batch, 8, 4, 4] x) => (float[batch, 8, 1, 1] y) {
    added = Add(x, x)
    y = GlobalAveragePool(added)
}
"""


# In OpenVINO the mean also reads its two axes, as 32-bit integers.
@pytest.mark.parametrize(("backend", "axes"), [(OnnxRuntime(), 0), (OpenVINO(), 8)], ids=["onnxruntime", "openvino"])
def test_the_layers_of_an_engine_tell_what_they_read_and_write(backend, axes, tmp_path):
    if backend.probe().builds is not None:
        pytest.skip(str(backend.probe().builds))
    file, engine = tmp_path / "net.onnx", tmp_path / f"net.engine{backend.suffix}"
    onnx.save(onnx.parser.parse_model(ADDED), file)
    backend.build(file, engine, BuildOptions(batch=BatchRange(1, 1, 4)))
    ran = backend.layer_runs(engine, {"x": np.ones((3, 8, 4, 4), np.float32)}, 2, 1)
    map_, mean = 4 * 3 * 8 * 4 * 4, 4 * 3 * 8
    # Besides these there may be layers that only pass a value on.
    assert {3 * map_, map_ + mean + axes} <= {layer.bytes for layer in ran.values()}
    assert all(layer.seconds > 0 for layer in ran.values())


def test_blocks_that_are_alike_are_left_out_together(here):
    text = Path("tiny.yaml").read_text().replace("depth: 8", "depth: 14")
    Path("deep.yaml").write_text(text)
    plan = pipeline.plan(pipeline.load_spec("deep.yaml")).plan
    subject = pricing.Subject(
        "deep",
        None,
        plan,
        "",
        pipeline.engine(),
        SHORT,
        {},
        trained=False,
        together=True,  # type: ignore[arg-type]
    )
    assert [[site.scope for site, _ in group] for group in subject.groups] == [
        ["layer1.0", "layer1.1"],
        ["layer2.0", "layer2.1"],
        ["layer3.0", "layer3.1"],
    ]
