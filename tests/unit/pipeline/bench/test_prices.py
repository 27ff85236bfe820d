"""Price lists: of a plan before any training, of a run's engine, and the picture coloured by them."""

from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

from sesurgery import pipeline
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.bench import prices, pricing
from sesurgery.pipeline.bench.variants import Variants
from sesurgery.reports.text.prices import labels
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
    assert variants.count(file) == 3
    assert variants.layers(file, 1) is None


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
