"""The drift of TensorRT engines: the tapped copy goes through TensorRT-RTX's real builder; the device is a stand-in."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from timm.layers import SEModule

from sesurgery.backends.base import BatchRange, BuildOptions, Runner, TensorInfo
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.lowering.base import run as lower
from sesurgery.lowering.precision.half import Precision
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.half_meaning import in_single
from sesurgery.verification import engine_drift
from sesurgery.verification.chain import Links, diagnose

RTX = TensorRTForRTX()
pytestmark = pytest.mark.skipif(RTX.probe().builds is not None, reason=str(RTX.probe().builds))


class Device(Runner):
    """Computes what the file says, but for one value, which it gives as infinity."""

    def __init__(self, model: onnx.ModelProto, broken: str) -> None:
        self.run = numerics.runner(in_single(model))
        self.broken = broken
        self.inputs = (TensorInfo(model.graph.input[0].name, ("batch", 3, 32, 32), "float32"),)
        self.outputs = tuple(TensorInfo(value.name, ("batch",), "float32") for value in model.graph.output)

    def infer(self, feeds):
        found = self.run(feeds)
        lost = False
        for info in self.outputs[1:] + self.outputs[:1]:
            lost = lost or info.name == self.broken
            if lost:
                found[info.name] = np.full_like(found[info.name], np.inf)
        return found

    def time(self, feeds, repeats):
        raise NotImplementedError

    def close(self):
        pass


class Builder:
    """TensorRT-RTX's builder; engines run on the stand-in."""

    suffix = RTX.suffix

    def __init__(self, broken: str) -> None:
        self.broken = broken

    def build(self, file: Path, out: Path, options: BuildOptions, progress=None):
        report = RTX.build(file, out, options)
        self.built = onnx.load(file)
        return report

    def load(self, engine: Path, threads=None):
        assert engine.stat().st_size > 1000
        return Device(self.built, self.broken)


def test_a_value_that_the_device_loses_is_found_at_its_block(small_se, small_se_onnx):
    exported = onnx.load(small_se_onnx)
    modules = {f"se/{name}": name for name, module in small_se.named_modules() if isinstance(module, SEModule)}
    source = lower(exported, [Precision("fp16")]).model
    links = Links(exported, exported, source, "fp16", modules)
    guilty = next(tap for tap in links.taps if tap.site == list(modules)[2])
    suspect = engine_drift.of_backend(links, Builder(guilty.value), BuildOptions("fp16", BatchRange(1, 1, 2)))
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    drift = engine_drift.drift(suspect, [images])
    assert (drift.first.name, drift.first.nonfinite) == (guilty.name, 1)
    assert len(drift.errors) == len(links.taps)
    found = diagnose(links, None, images, lambda: drift)
    assert (found.kind, found.site) == ("precision", guilty.site)
    assert "its file agrees with the model" in found.text
