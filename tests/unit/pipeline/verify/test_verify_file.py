"""`verify` without a run: engines against ONNX files, on noise or on samples of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.files import write

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import FileVerifyRequest, Workspace
from sesurgery.reports.text import file_parity
from sesurgery.spec.parity import Tolerance


def verified(engine: str, against: str | None = None, **asked: object):
    return pipeline.verify_file(FileVerifyRequest(Path(engine), Workspace(), against and Path(against), **asked))


def built(path: str, **asked: object) -> str:
    wanted = pipeline.engine({"backend": "onnxruntime", **asked})
    return pipeline.build_engine(pipeline.BuildRequest(Path(path), wanted, Workspace())).path.as_posix()


def test_an_engine_of_a_file_is_compared_with_that_file_at_several_batches(files: Path) -> None:
    found = verified(built("net.onnx"))
    assert (found.parity.against, found.parity.samples) == ("net.onnx", "32 samples of noise")
    assert [(entry.output, entry.batch, entry.report.samples) for entry in found.parity.entries] == [
        ("y", 1, 32),
        ("y", 3, 32),
        ("y", 32, 32),
    ]
    assert (found.parity.passed, found.failures) == (True, ())
    header, first, *_ = file_parity.to_text([(found.parity, found.tolerance)]).splitlines()
    assert "95 % interval" in header
    # Wilson's interval of 32 of 32.
    assert "100 %  89.3 % to 100 %" in first


def test_an_engine_of_other_weights_falls_short_and_says_where(files: Path) -> None:
    write("other.onnx", seed=1)
    found = verified(built("net.onnx"), "other.onnx")
    assert found.parity.passed is False
    first = found.failures[0]
    assert (first.code, first.message.partition(": asked")[0]) == (
        "SE701",
        "net.onnxruntime.fp32.onnx at batch 1, output 'y': max_abs",
    )


def test_a_file_in_the_place_of_an_engine_is_built(files: Path) -> None:
    found = verified("net.onnx", "plain.onnx")
    assert found.engine == Path("engines/net.onnxruntime.fp32.onnx")
    assert found.parity.passed is False


def test_samples_and_tolerance_of_the_user_are_taken(files: Path) -> None:
    np.savez("mine.npz", x=np.zeros((5, 3, 16, 16), np.float32))
    found = verified(built("net.onnx"), "plain.onnx", samples=Path("mine.npz"), tolerance=Tolerance(max_abs=1e-6))
    # Without light there is nothing to scale.
    assert found.parity.passed
    assert found.parity.samples == "5 samples of mine.npz"
    assert [entry.batch for entry in found.parity.entries] == [1, 3, 5]
    assert [criterion.name for criterion in found.parity.entries[0].report.criteria] == ["max_abs"]


def test_the_batches_are_those_of_the_profile(files: Path) -> None:
    entries = verified(built("net.onnx", shapes=["x=4,8,16x3x16x16"])).parity.entries
    # 32 samples: after six batches of 5 there are 2, which the engine was not built for.
    assert [(entry.batch, entry.report.samples) for entry in entries] == [(4, 32), (5, 30), (8, 32), (16, 32)]


def test_what_needs_labels_is_not_asked(files: Path) -> None:
    found = verified(built("net.onnx", precision="fp16"))
    asked = {criterion.name for entry in found.parity.entries for criterion in entry.report.criteria}
    assert asked == {"max_abs", "min_agreement"}


def test_a_map_is_compared_by_its_values_alone(files: Path) -> None:
    model = onnx.load("net.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, ["batch", 8, 14, 14]))
    onnx.save(model, "two.onnx")
    entries = verified(built("two.onnx")).parity.entries
    asked = {entry.output: [criterion.name for criterion in entry.report.criteria] for entry in entries}
    assert asked == {"y": ["max_abs", "min_agreement"], "s": ["max_abs"]}
    assert all(entry.report.passed for entry in entries)


def test_a_fixed_batch_is_filled(files: Path) -> None:
    write("four.onnx", batch="4")
    found = verified(built("four.onnx", batch={"min": 4, "opt": 4, "max": 4}), "net.onnx")
    assert [(entry.batch, entry.report.samples, entry.report.passed) for entry in found.parity.entries] == [
        (4, 32, True)
    ]
    np.save("three.npy", np.zeros((3, 3, 16, 16), np.float32))
    few = verified(built("four.onnx", batch={"min": 4, "opt": 4, "max": 4}), "net.onnx", samples=Path("three.npy"))
    assert few.parity.passed is None
    assert "not verified at batch 4" in few.failures[0].message


def test_int8_is_not_judged_on_noise_unasked(files: Path) -> None:
    np.savez("mine.npz", x=np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32))
    engine = built("net.onnx", precision="int8", calibration={"file": "mine.npz"})
    with pytest.raises(SesurgeryError, match=r"SE402.*on random noise proves nothing"):
        verified(engine)
    asked = {
        criterion.name
        for found in (
            verified(engine, samples=Path("mine.npz")),
            verified(engine, tolerance=Tolerance(min_cosine=0.5)),
        )
        for entry in found.parity.entries
        for criterion in entry.report.criteria
    }
    assert asked == {"min_agreement", "min_cosine"}


@pytest.mark.parametrize(
    ("against", "samples", "code", "words"),
    [
        ("gone.onnx", None, "SE402", "gone.onnx, which net.onnxruntime.fp32.onnx is to be compared with, is not there"),
        ("wide.onnx", None, "SE606", "output 'y' has the shape [32, 8] from the engine and [32, 1568] from the file"),
        ("net.onnx", "gone.npz", "SE402", "gone.npz, which is to hold samples, is not there"),
        ("net.onnx", "named.npz", "SE606", "named.npz holds samples of image; the network's inputs are x"),
        ("net.onnx", "none.npz", "SE606", "none.npz holds 0 samples of its inputs"),
    ],
)
def test_what_cannot_be_compared_says_why(
    against: str, samples: str | None, code: str, words: str, files: Path
) -> None:
    model = onnx.load("net.onnx")
    model.graph.node[-1].input[0] = "s"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8 * 14 * 14
    onnx.save(model, "wide.onnx")
    np.savez("named.npz", image=np.zeros((1, 3, 16, 16), np.float32))
    np.savez("none.npz", x=np.zeros((0, 3, 16, 16), np.float32))
    with pytest.raises(SesurgeryError) as caught:
        verified(built("net.onnx"), against, samples=samples and Path(samples))
    (told,) = caught.value.diagnostics
    assert told.code == code
    assert words in told.message
