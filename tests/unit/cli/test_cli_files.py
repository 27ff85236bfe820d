"""`verify` and `bench` of ONNX files without a run, as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.files import write


def test_an_engine_of_a_file_is_verified_without_a_word_of_top_1(sesurgery, files: Path) -> None:
    assert sesurgery("build-engine", "net.onnx").code == 0
    ended = sesurgery("verify")
    assert (ended.code, "top-1" in ended.out) == (0, False)
    *_, last = ended.out.strip().splitlines()
    assert last == (
        "engines/net.onnxruntime.fp32.onnx against net.onnx, on 32 samples of noise; "
        "asked: max_abs 0.001, min_agreement 1"
    )


def test_one_that_falls_short_exits_with_4_and_its_json_has_the_keys_of_a_run(sesurgery, files: Path) -> None:
    write("other.onnx", seed=1)
    ended = sesurgery("verify", "net.onnx", "--against", "other.onnx", "--json")
    assert ended.code == 4
    (engine,) = json.loads(ended.out)["engines"]
    assert (engine["verdict"], engine["against"]) == ("failed", "other.onnx")
    assert {"engine", "batches", "drift"} <= engine.keys()
    assert "SE701" in ended.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--drift"], "name engines of a run alone"),
        (["--tolerance", "max_abs"], "expected KEY=VALUE"),
        (["--tolerance", "max_abs=soft"], "write one as max_abs=0.1"),
        (["--tolerance", "softness=1"], "write one as max_abs=0.1"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_of_usage(more, words: str, sesurgery, files: Path) -> None:
    ended = sesurgery("verify", "net.onnx", *more)
    assert ended.code == 2
    assert words in ended.err


def test_a_tolerance_of_the_users_own_is_what_is_asked(sesurgery, files: Path) -> None:
    write("other.onnx", seed=1)
    ended = sesurgery("verify", "net.onnx", "--against", "other.onnx", "--tolerance", "max_abs=100")
    assert ended.code == 0
    assert ended.out.rstrip().endswith("asked: max_abs 100")


def test_two_files_race_and_nothing_is_reported_of_a_run(sesurgery, files: Path, brief_races) -> None:
    ended = sesurgery("bench", "net.onnx", "--against", "plain.onnx", "--no-as-exported")
    assert ended.code == 0
    assert ended.out.startswith("engines/net.onnxruntime.fp32.onnx against engines/plain.onnxruntime.fp32.onnx\n")
    assert "report ->" not in ended.out + ended.err
    refused = sesurgery("bench", "net.onnx", "--per-block")
    assert (refused.code, "came from no run" in refused.err) == (1, True)
