"""Cold start, memory and streams of an engine in a process of its own."""

import dataclasses
import json

import numpy as np
import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.reports import service as rendered
from sesurgery.verification.estimates import summarise
from sesurgery.verification.fresh_process import EngineFile
from sesurgery.verification.service import Service, Streams, measure

SLOW, FAST = (summarise(np.full(20, seconds), 1) for seconds in (4e-3, 2e-3))
FOUND = Service(0.5, 0.1, 0.02, 3_000_000, 90_000_000, (Streams(1, 2, FAST, 500.0), Streams(2, 1, SLOW, 600.0)))


@pytest.fixture
def engine(tiny):
    return EngineFile("tiny", str(tiny / "engines/tiny.onnxruntime.fp32.onnx"), {"backend": "onnxruntime"}, 2)


def test_an_engine_starts_cold_and_answers_in_streams(engine):
    feeds = {"input": np.zeros((1, 1, 8, 8), np.float32)}
    found = measure(engine, feeds, (1, 2), seconds=0.05)
    assert min(found.import_seconds, found.load_seconds, found.first_inference_seconds) > 0
    assert 0 < found.memory < found.peak
    assert [(each.streams, each.threads) for each in found.streams] == [(1, 2), (2, 1)]
    for each in found.streams:
        assert each.stats.count >= 5 * each.streams
        assert each.qps > 0


def test_an_engine_that_is_not_there_is_an_error_with_the_process_last_words(engine):
    gone = dataclasses.replace(engine, engine="nothing.onnx")
    with pytest.raises(SesurgeryError, match="SE603"):
        measure(gone, {"input": np.zeros((1, 1, 8, 8), np.float32)}, (1,))


def test_the_text_says_what_more_streams_bring():
    lines = rendered.findings(FOUND)
    assert lines[0] == "cold start in a fresh process: import 500.0 ms, load 100.0 ms, first inference 20.00 ms"
    assert lines[2] == "throughput: 1.20 times that of one stream, with 2 streams"
    assert rendered.table(FOUND)[1][:4] == ["2", "1", "600", "4.000"]
    alone = dataclasses.replace(FOUND, streams=(FOUND.streams[1], FOUND.streams[0]))
    assert rendered.findings(alone)[2] == "throughput: one stream with all threads gets most done"


def test_json_has_trtexecs_names():
    data = json.loads(json.dumps(rendered.to_json(FOUND)))
    assert data["cold_start_ms"] == {"import": 500.0, "load": 100.0, "first_inference": 20.0}
    first = data["streams"][0]
    assert (first["throughput_qps"], first["latency_ms"]["percentile(99%)"]) == (500.0, 2.0)
