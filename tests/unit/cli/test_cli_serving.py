"""The verbs around a built engine: up to date, the choice of auto, images, servers, engines from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

ENGINE = "engines/tiny.onnxruntime.fp32.onnx"


def test_an_engine_that_is_up_to_date_is_said_to_be(sesurgery, here):
    ended = sesurgery("build-engine", "runs/tiny")
    assert (ended.code, ended.out, ended.err) == (0, f"up to date -> {ENGINE}\n", "")
    again = sesurgery("build-engine", "runs/tiny", "--again")
    assert again.out.endswith(f" -> {ENGINE}\n")
    assert again.err.splitlines()[0] == "building tiny.onnxruntime.fp32.onnx: it was asked for"
    changed = sesurgery("build-engine", "runs/tiny", "--fp32", "--batch", "1,2,4")
    assert changed.err.splitlines()[0] == "building tiny.onnxruntime.fp32.onnx: what was asked for changed"


def test_auto_shows_what_it_tried_and_why_each_was_left(sesurgery, here):
    pytest.importorskip("openvino")
    arguments = (
        "build-engine",
        "runs/tiny",
        "--backend",
        "auto",
        "-O",
        'among=["onnxruntime", "openvino", "tensorrt"]',
    )
    ended = sesurgery(*arguments, "--batch", "1,1,256")
    assert ended.code == 0, ended.err
    head, kept, *left, last = ended.out.splitlines()
    assert head.split() == ["backend", "median", "ms", "max", "error"]
    assert kept.endswith("kept")
    assert kept.split()[0] in ("onnxruntime", "openvino")
    assert {line.split()[0] for line in (kept, *left)} == {"onnxruntime", "openvino", "tensorrt"}
    assert f"engines/tiny.{kept.split()[0]}.fp32.auto." in last
    repeated = sesurgery(*arguments, "--batch", "1,1,256").out.splitlines()
    assert repeated[:-1] == ended.out.splitlines()[:-1]
    assert repeated[-1].startswith("up to date -> ")


@pytest.fixture
def images(here: Path) -> list[str]:
    Path("images").mkdir()
    for level in (0, 128):
        Image.new("L", (8, 8), level).save(f"images/{level:03}.png")
    return ["images/000.png", "images/128.png"]


def test_predict_prints_a_line_an_image(sesurgery, images):
    ended = sesurgery("predict", ENGINE, *images, "--top", "2")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines] == images
    assert all(line.count(" %") == 2 for line in lines)


def test_predict_gives_json_for_a_folder(sesurgery, images):
    ended = sesurgery("predict", ENGINE, "images", "--json")
    found = json.loads(ended.out)
    assert [item["image"] for item in found] == images
    assert {len(item["classes"]) for item in found} == {3}


def test_predict_answers_for_the_rest_and_exits_with_1(sesurgery, images):
    Path("images/notes.png").write_text("not an image")
    ended = sesurgery("predict", ENGINE, "images")
    assert ended.code == 1
    assert len(ended.out.splitlines()) == 2
    assert "error[SE001]: images/notes.png is not an image that can be read" in ended.err


def test_package_says_what_it_wrote_and_what_differs_there(sesurgery, here):
    ended = sesurgery("package", ENGINE, "--triton", "models")
    assert (ended.code, ended.out) == (0, "version 1 -> models/tiny/1/model.onnx\n")
    assert ended.err.startswith("note: model.onnx is the file that the engine was built from")
    assert sesurgery("package", ENGINE, "--triton", "models").out == "version 2 -> models/tiny/2/model.onnx\n"


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("bench",), ("predict", "images"), ("package", "--triton", "models")],
    ids=lambda value: value[0],
)
def test_an_engine_from_elsewhere_is_taken_when_asked_for(arguments, sesurgery, images):
    manifest = Path(f"{ENGINE}.manifest.json")
    changed = json.loads(manifest.read_text())
    changed["details"]["ingredients"]["the backend's version"] = "onnxruntime 0.1"
    manifest.write_text(json.dumps(changed))
    verb, *others = arguments
    refused = sesurgery(verb, ENGINE, *others)
    assert refused.code == 1
    assert "error[SE603]" in refused.err
    assert "or take it as it is with --foreign" in refused.err
    assert sesurgery(verb, ENGINE, *others, "--foreign").code == 0


def test_doctor_tells_of_providers_and_of_the_processor(sesurgery):
    ended = sesurgery("doctor")
    assert "providers in this onnxruntime: cpu" in ended.out
    assert "auto" not in ended.out.split()
