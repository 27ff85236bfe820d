"""A network that one protobuf cannot hold goes through export, build and verify with its weights beside the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.pipeline import EnginesRequest, Workspace
from sesurgery.workspace import read_manifest, require_intact

RUN, ONNX = Path("runs/tiny"), Path("export/tiny.onnx")
FP32, FP16 = (Path(f"engines/tiny.onnxruntime.{precision}.onnx") for precision in ("fp32", "fp16"))


@pytest.fixture
def large(here, monkeypatch) -> Path:
    """The run's files made again, as if a protobuf held no more than 4 KB."""
    monkeypatch.setattr(onnx_io, "LIMIT", 4096)
    pipeline.export(RUN, Workspace())
    pipeline.build_engines(EnginesRequest(RUN, Workspace()))
    return here


@pytest.mark.parametrize("path", [ONNX, FP32], ids=str)
def test_the_manifest_covers_the_weights_beside(large, path):
    data = path.with_name(path.name + ".data")
    assert [other.path for other in read_manifest(path).beside] == [data.name]
    require_intact(path)
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    with pytest.raises(SesurgeryError, match=rf"SE401.*{data.name} is not the file"):
        require_intact(path)


def test_the_engine_agrees_with_the_trained_network(large):
    assert pipeline.verify(FP32).failures == ()


def test_an_fp16_engine_is_built_of_a_file_with_weights_beside_it(large):
    pipeline.build_engines(EnginesRequest(RUN, Workspace(), (pipeline.engine({"precision": "fp16"}),)))
    assert onnx_io.beside(Path("export/tiny.fp16.onnx"))
    require_intact(FP16)
