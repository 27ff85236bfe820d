"""Cold start, memory and streams of engines, each in a process of its own."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import TypeAdapter

from sesurgery.backends.onnxruntime_graph.session import Session
from sesurgery.diagnostics import SesurgeryError
from sesurgery.reports.text import service as rendered
from sesurgery.verification.estimates import summarise
from sesurgery.verification.fresh_process import EngineFile
from sesurgery.verification.service import FEEDS, JOB, EngineService, Service, Streams, main, measure, measure_all
from sesurgery.verification.service import FOUND as FOUND_FILE

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


def test_a_stream_on_a_gpu_has_its_copies_in_it_and_tells_what_the_host_takes(engine, tmp_path, monkeypatch):
    parts = {"latency": np.full(5, 3e-3), "enqueue": np.full(5, 1e-4)}
    monkeypatch.setattr(Session, "timings", lambda *asked: SimpleNamespace(parts=parts), raising=False)
    job = {"file": dataclasses.asdict(engine), "streams": [2], "seconds": 0.001}
    (tmp_path / JOB).write_text(json.dumps(job))
    np.savez(tmp_path / FEEDS, input=np.zeros((1, 1, 8, 8), np.float32))
    main(tmp_path)
    found = TypeAdapter(Service).validate_json((tmp_path / FOUND_FILE).read_text())
    (streams,) = rendered.to_json(EngineService("tiny", (found, found)))["streams"]
    assert streams["latency_ms"]["median"] == pytest.approx(3)
    assert streams["enqueue_ms"]["percentile(99%)"] == pytest.approx(0.1)
    assert list(streams["enqueue_ms"]) == list(streams["latency_ms"])


def test_engines_take_turns_in_fresh_processes_and_each_keeps_its_own(engine):
    other = dataclasses.replace(engine, name="other")
    feeds = {"input": np.zeros((1, 1, 8, 8), np.float32)}
    told = []
    found = measure_all(
        [engine, other], feeds, (1,), seconds=0.01, progress=lambda what, done, total: told.append((done, total))
    )
    assert [each.name for each in found] == ["tiny", "other"]
    assert all(len(each.processes) == 1 for each in found)
    assert told == [(0, 2), (1, 2), (2, 2)]


TWICE = EngineService("with blocks", (FOUND, dataclasses.replace(FOUND, load_seconds=0.12)))
ONCE = EngineService("without", (FOUND,))


def test_the_text_says_what_more_streams_bring():
    assert rendered.cold([ONCE]) == [["without", "500.0", "100.0", "20.00", "3.0 MB", "90.0 MB"]]
    assert rendered.findings([ONCE]) == ["without: throughput 1.20 times that of 1 stream, with 2 streams"]
    assert rendered.table([ONCE])[1][:5] == ["without", "2", "1", "600", "4.000"]
    slower = dataclasses.replace(FOUND, streams=(FOUND.streams[1], FOUND.streams[0]))
    alone = EngineService("without", (dataclasses.replace(slower, streams=(slower.streams[0], FOUND.streams[0])),))
    assert rendered.findings([alone]) == ["without: more streams bring no more throughput"]


def test_what_is_repeated_has_an_interval_and_what_is_not_has_none():
    # Of 0.1 and 0.12 s: Student's quantile for one degree of freedom is 12.7062, the standard error half of log 1.2.
    load = TWICE.mean(lambda found: found.load_seconds)
    factor = 1.2 ** (12.7062 / 2)
    middle = 0.012**0.5
    assert (load.value, load.low, load.high) == pytest.approx((middle, middle / factor, middle * factor), rel=1e-4)
    assert rendered.cold([TWICE])[0][2] == "109.5 (34.4 to 348.8)"
    assert ONCE.mean(lambda found: found.load_seconds).low is None
    assert rendered.findings([TWICE, ONCE])[-1] == "geometric means of 2 fresh processes, with 95 % intervals"


def test_json_has_trtexecs_names():
    data = json.loads(json.dumps(rendered.to_json(ONCE)))
    assert data["cold_start_ms"] == {"import": 500.0, "load": 100.0, "first_inference": 20.0}
    assert data["memory_bytes"] == {"engine": 3_000_000, "peak": 90_000_000}
    assert data["cold_start_interval_ms"]["load"] is None
    first = data["streams"][0]
    assert first["enqueue_ms"] is None
    assert (first["throughput_qps"], first["latency_ms"]["percentile(99%)"]) == (500.0, 2.0)
    again = json.loads(json.dumps(rendered.to_json(TWICE)))
    assert again["processes"] == 2
    assert again["cold_start_interval_ms"]["load"] == pytest.approx([34.4, 348.8], abs=0.1)
    assert again["streams"][1]["throughput_interval_qps"] == pytest.approx([600.0, 600.0])
