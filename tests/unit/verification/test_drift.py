"""Where a network is looked into, how far apart the values are there, and the search one place at a time."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from timm.layers import SEModule

from sesurgery.backends.base import BuildOptions, Runner, TensorInfo
from sesurgery.lowering.base import run as lower
from sesurgery.lowering.precision.half import Precision
from sesurgery.lowering.precision.int8 import Quantize, ranges_of
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.observe import watching
from sesurgery.onnxgraph.scopes import scope_of
from sesurgery.verification import chain, engine_drift
from sesurgery.verification.chain import Links
from sesurgery.verification.drift import Drift, TapError, growth
from sesurgery.verification.taps import LOGITS, Tap, found_in, taps_of

IMAGES = [np.random.default_rng(index).normal(size=(1, 3, 32, 32)).astype(np.float32) for index in range(3)]


@pytest.fixture(scope="module")
def exported(small_se_onnx):
    return onnx.load(small_se_onnx)


@pytest.fixture(scope="module")
def modules(small_se):
    return {f"se/{name}": name for name, module in small_se.named_modules() if isinstance(module, SEModule)}


@pytest.fixture(scope="module")
def int8(exported):
    feeds = [{exported.graph.input[0].name: image} for image in IMAGES]
    return lower(exported, [Quantize(ranges_of(exported, feeds, "minmax"))]).model


def test_taps_are_the_blocks_and_the_ends_of_stages_in_order(exported, modules):
    taps = taps_of(exported, modules)
    names = [tap.name for tap in taps]
    assert [name for name in names if name in modules] == list(modules)
    assert sum(name.startswith("end of stage") for name in names) >= 3
    assert names[-1] == LOGITS
    # Never all tensors.
    assert len(taps) < len(exported.graph.node) / 4


def test_a_tapped_copy_has_these_outputs_and_the_file_stays_as_it_was(exported, modules):
    before = exported.SerializeToString()
    taps = taps_of(exported, modules)
    copy = watching(exported, [tap.value for tap in taps])
    assert {value.name for value in copy.graph.output} == {tap.value for tap in taps}
    assert exported.SerializeToString() == before


def test_places_are_found_again_in_fp16_and_behind_the_pairs_of_int8(exported, modules, int8):
    taps = taps_of(exported, modules)
    half = lower(exported, [Precision("fp16")]).model
    assert [tap.name for tap in found_in(half, taps)] == [tap.name for tap in taps]
    found = found_in(int8, taps)
    assert [tap.name for tap in found] == [tap.name for tap in taps]
    flow = Dataflow(int8)
    readers = {name for node in flow.nodes if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    # Read directly, a value that is quantized at once would keep its convolution from having an integer kernel.
    assert not {tap.value for tap in found[:-1] if flow.producer[tap.value].op_type == "Conv"} & readers


def test_an_honest_file_drifts_no_further_than_its_precision_explains(exported, modules, int8):
    for precision, model in (
        ("fp32", exported),
        ("fp16", lower(exported, [Precision("fp16")]).model),
        ("int8", int8),
    ):
        links = Links(exported, exported, model, precision, modules)
        found = chain.of_file(links, model, precision, IMAGES)
        assert found.first is None, (precision, found)
        assert chain.of_files(links, IMAGES) is None


TAPS = (Tap("a", "a", "a", "a"), Tap("end", "b", "b"), Tap("c", "c", "c", "c"), Tap(LOGITS, "y", ""))


def test_the_error_is_of_the_worst_sample_and_infinite_where_values_are_lost():
    values = {name: np.ones((2, 4)) for name in "abcy"}
    other = {**values, "b": np.array([[1.0, 1, 1, 1], [1, 1, 1, 3]]), "c": np.array([[1.0, np.nan, 1, 1], [1.0] * 4])}
    found = growth(TAPS, TAPS, lambda _: values, lambda _: other, [np.zeros((2, 1, 1, 1), np.float32)], 0.5)
    assert [each.error for each in found.errors] == [0, 1.0, np.inf, 0]
    assert (found.errors[2].nonfinite, found.first.name, found.before.name, found.first_site) == (1, "end", "a", "c")


def test_what_the_model_itself_loses_is_no_drift():
    values = {name: np.full((1, 2), np.inf) for name in "abcy"}
    found = growth(TAPS, TAPS, lambda _: values, lambda _: values, [np.zeros((1, 1, 1, 1), np.float32)], 0.5)
    assert found.first is None


class Shy:
    """A backend whose engines are wrong from one place on, unless more than two places are looked at."""

    suffix = ".shy"
    builds = 0

    def __init__(self, wrong_from: str) -> None:
        self.wrong_from = wrong_from

    def build(self, file: Path, out: Path, options: BuildOptions, progress=None):
        out.write_bytes(file.read_bytes())
        self.builds += 1

    def load(self, engine: Path, threads=None):
        return ShyRunner(onnx.load(engine), self.wrong_from)


class ShyRunner(Runner):
    def __init__(self, model: onnx.ModelProto, wrong_from: str) -> None:
        from sesurgery.onnxgraph import numerics

        self.run = numerics.runner(model)
        self.inputs = (TensorInfo(model.graph.input[0].name, ("batch", 3, 32, 32), "float32"),)
        self.names = [value.name for value in model.graph.output]
        self.order = [name for node in model.graph.node for name in node.output]
        self.wrong_from = self.order.index(wrong_from)

    def infer(self, feeds):
        found = self.run(feeds)
        if len(found) > 2:
            return found
        return {name: value + (self.order.index(name) >= self.wrong_from) for name, value in found.items()}

    def time(self, feeds, repeats):
        raise NotImplementedError

    def close(self):
        pass


def test_a_fault_that_goes_when_all_is_looked_at_is_found_one_place_at_a_time(exported, modules):
    links = Links(exported, exported, exported, "fp32", modules)
    taps = links.taps
    for guilty in (1, len(taps) // 2, len(taps) - 2):
        backend = Shy(taps[guilty].value)
        suspect = engine_drift.of_backend(links, backend, BuildOptions())
        found = engine_drift.drift(suspect, IMAGES[:1])
        assert found.first.name == taps[guilty].name
        assert "one place at a time" in found.how
        assert backend.builds <= 2 + np.ceil(np.log2(len(taps)))


def test_the_first_block_over_tolerance_is_the_one_behind_the_place():
    errors = tuple(TapError(name, name, site, error, 1.0) for name, site, error in
                   (("a", "a", 0.0), ("end", None, 0.2), ("c", "c", np.nan)))  # fmt: skip
    found = Drift(errors, 0.1)
    assert (found.first.name, found.first_site, found.before.name) == ("end", "c", "a")
    assert Drift(errors[:1], 0.1).first_site is None


def test_modules_that_somebody_names_stay_fp32(exported):
    for step in (Precision("fp16", keep=("layer2*",)),):
        lowered = lower(exported, [step])
        asked = [edit for edit in lowered.edits if edit.kind == "asked"]
        nodes = {node.name: scope_of(node) for node in lowered.model.graph.node if node.name}
        assert asked
        assert all(nodes[edit.where].startswith("layer2") for edit in asked)
        flow = Dataflow(lowered.model)
        for node in flow.nodes:
            if node.op_type == "Conv" and (scope_of(node) or "").startswith("layer2"):
                assert flow.dtype(node.output[0]) == onnx.TensorProto.FLOAT
