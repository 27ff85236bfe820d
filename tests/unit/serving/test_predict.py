"""`predict`: images in, classes out, as the trained network would answer; no torch, and no file lost in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.pipeline import EnginesRequest
from sesurgery.serving import interface
from sesurgery.serving.interface import Interface
from sesurgery.training.evaluation import logits

ENGINES = [Path("engines/tiny.onnxruntime.fp32.onnx"), Path("engines/tiny.openvino.fp32.xml")]
COUNT = 20


@pytest.fixture
def digits(here: Path) -> list[Path]:
    """The first digits as files: what the data set holds in 17 steps of grey, in 256."""
    Path("images").mkdir()
    paths = [Path(f"images/{index:02}.png") for index in range(COUNT)]
    for path, image in zip(paths, levels(), strict=True):
        Image.fromarray(image).save(path)
    return paths


def levels() -> np.ndarray:
    """The first digits in 256 levels of grey."""
    return np.round(load_digits().images[:COUNT] * 255 / 16).astype(np.uint8)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda path: path.suffix)
def test_an_image_is_answered_as_the_trained_network_answers_the_sample(engine: Path, digits: list[Path]) -> None:
    run = checkpoint.read(Path("runs/tiny"), pipeline.catalogs())
    data = run.spec.train.data.options
    pixels, labels, train, _ = data.raw(run.spec.input.shape)
    images = torch.nn.functional.interpolate(pixels, run.spec.input.shape[1:], mode="bilinear", antialias=True)
    seen = torch.from_numpy(levels()[:, None] * np.float32(16 / 255))
    expected = torch.softmax(logits(run.network, [(seen - images[train].mean()) / images[train].std()]), 1).numpy()
    done = pipeline.predict(engine, digits, top=10)
    assert done.failures == ()
    assert [item.image for item in done.predictions] == digits
    for item, shares in zip(done.predictions, expected, strict=True):
        found = {guess.name: guess.probability for guess in item.guesses}
        assert max(abs(found[str(index)] - share) for index, share in enumerate(shares)) < 1e-4
    # Of the samples, most of which it was trained on, the network knows nearly all: the names are at their classes.
    right = [item.guesses[0].name == str(int(labels[index])) for index, item in enumerate(done.predictions)]
    assert np.mean(right) > 0.5


def test_the_most_probable_come_first_and_all_of_them_add_up_to_one(digits: list[Path]) -> None:
    (item,) = pipeline.predict(ENGINES[0], digits[:1], top=10).predictions
    shares = [guess.probability for guess in item.guesses]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    (few,) = pipeline.predict(ENGINES[0], digits[:1], top=2).predictions
    assert few.guesses == item.guesses[:2]


def test_a_folder_is_its_images_in_order_and_more_than_one_run_of_the_engine(digits: list[Path]) -> None:
    Path("images/notes.txt").write_text("not an image")
    done = pipeline.predict(ENGINES[1], [Path("images")])
    assert [item.image for item in done.predictions] == digits
    one_by_one = [pipeline.predict(ENGINES[1], [path]).predictions[0] for path in digits[-2:]]
    for alone, together in zip(one_by_one, done.predictions[-2:], strict=True):
        assert alone.guesses[0].name == together.guesses[0].name
        assert alone.guesses[0].probability == pytest.approx(together.guesses[0].probability, abs=1e-5)


def test_an_engine_for_large_batches_answers_for_a_single_image(digits: list[Path]) -> None:
    wanted = pipeline.engine({"backend": "openvino", "batch": {"min": 8, "opt": 8, "max": 8}, "name": "eight"})
    (built,) = pipeline.build_engines(EnginesRequest(Path("runs/tiny"), pipeline.Workspace(), (wanted,)))
    found = pipeline.predict(built.path, digits[:9]).predictions
    expected = pipeline.predict(ENGINES[1], digits[:9]).predictions
    assert [item.guesses[0].name for item in found] == [item.guesses[0].name for item in expected]


def test_an_engine_with_profiles_is_given_batches_that_one_of_them_takes(digits: list[Path]) -> None:
    profiles = ["input=4,4,6x1x8x8", "input=12,12,16x1x8x8"]
    wanted = pipeline.engine({"backend": "openvino", "shapes": profiles, "name": "profiles"})
    (built,) = pipeline.build_engines(EnginesRequest(Path("runs/tiny"), pipeline.Workspace(), (wanted,)))
    expected = pipeline.predict(ENGINES[1], digits).predictions
    # Fewer than the smallest batch, as many as lie between two profiles, more than the largest batch.
    for count in (1, 7, 19):
        found = pipeline.predict(built.path, digits[:count]).predictions
        assert [item.guesses[0].name for item in found] == [item.guesses[0].name for item in expected[:count]]


def test_files_that_are_no_images_are_named_and_the_others_answered(digits: list[Path]) -> None:
    Path("broken.png").write_bytes(digits[0].read_bytes()[:60])
    Path("empty.jpg").write_bytes(b"")
    done = pipeline.predict(ENGINES[0], [digits[0], Path("broken.png"), Path("empty.jpg"), Path("gone.png"), digits[1]])
    assert [item.image for item in done.predictions] == digits[:2]
    assert [(failure.code, failure.message.split()[0]) for failure in done.failures] == [
        ("SE001", "broken.png"),
        ("SE001", "empty.jpg"),
        ("SE001", "gone.png"),
    ]


def test_a_folder_without_images_is_an_error(here: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE001.*there is no image in runs/"):
        pipeline.predict(ENGINES[0], [Path("runs")])


def test_a_data_set_without_images_is_named(digits: list[Path]) -> None:
    interface.write(Path("runs/tiny"), Interface("waves", tuple("0123456789"), None))
    with pytest.raises(SesurgeryError, match=r"SE501.*'waves' does not say how an image file"):
        pipeline.predict(ENGINES[0], digits)


def test_another_number_of_classes_is_an_error(digits: list[Path]) -> None:
    known = interface.read(Path("runs/tiny"))
    interface.write(Path("runs/tiny"), Interface(known.dataset, known.classes[:9], known.preprocessing))
    with pytest.raises(SesurgeryError, match=r"SE606.*the data set has 9 classes"):
        pipeline.predict(ENGINES[0], digits)


def test_what_the_network_takes_is_written_down_again_where_it_is_gone(digits: list[Path]) -> None:
    before = interface.read(Path("runs/tiny"))
    (Path("runs/tiny") / interface.FILE).unlink()
    with pytest.raises(SesurgeryError, match=r"SE402(.|\n)*sesurgery build-engine runs/tiny"):
        pipeline.predict(ENGINES[0], digits)
    pipeline.build_engines(EnginesRequest(Path("runs/tiny"), pipeline.Workspace()))
    assert interface.read(Path("runs/tiny")) == before


@pytest.mark.parametrize("engine", ENGINES, ids=lambda path: path.suffix)
def test_the_program_predicts_without_torch(engine: Path, digits: list[Path]) -> None:
    program = (
        "import sys; from sesurgery.cli import main; import atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    )
    (expected,) = pipeline.predict(engine, digits[:1]).predictions
    command = [sys.executable, "-c", program, "predict", str(engine), str(digits[0])]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"images/00.png  {expected.guesses[0].name} ")
    assert done.stderr == "False\n"
