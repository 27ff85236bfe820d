"""`gates NET.onnx --fold`: predicted and measured is what the folded file does that the printed command writes."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from fixtures.planted import plant_constants

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import examples
from sesurgery.lowering.squeezes import squeezes
from sesurgery.networks import checkpoint
from sesurgery.onnxgraph import numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.pipeline import FileFoldRequest, Workspace
from sesurgery.pipeline.build_engine.halves import halves
from sesurgery.reports.text.fold_file import to_json, to_text
from sesurgery.spec.latency import Latency
from sesurgery.training.data import data_of
from sesurgery.verification.file_folding import Answering, FileFolding, answering

pair_module = importlib.import_module("sesurgery.pipeline.gates.pair")
SHORT = Latency(rounds=10, repeats=1, placements=4, half_width=None, warmup_seconds=0, threads=1)
HEAD = "<float[8,4,3,3] w, float[8,8,1,1] p, float[8,5] v, int64[3] rows = {0, 8, 16}>"
SCALED = "u = Conv(x, w) z = GlobalAveragePool(u) d = Conv(z, p) gate = Sigmoid(d) s = Mul(u, gate)"
CLASSES = "r = Relu(s) q = GlobalAveragePool(r) f = Flatten(q) y = MatMul(f, v)"
SEQUENCE = "r = Reshape(s, rows) t = Transpose <perm: ints = [0, 2, 1]> (r) y = Softmax(t)"
ALL = 0.5
"""A sigmoid is never further than this from the middle of its range."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(ends: str, output: str, *, batch: str = "N", samples: int = 40, spread: float = 1.0) -> None:
    """`net.onnx`, of one gate, and `x.npz` with samples for it; labels are those that the network gives, if any."""
    onnx.save(examples.model(f"(float[{batch},4,6,6] x) => ({output} y) {HEAD} {{ {SCALED} {ends} }}"), "net.onnx")
    drawn = np.random.default_rng(0).normal(size=(samples, 4, 6, 6))
    np.savez("x.npz", x=(spread * drawn).astype(np.float32))


def with_labels(labels: np.ndarray) -> None:
    np.savez("x.npz", x=np.load("x.npz")["x"], labels=labels)


def folded(bound: float | None = ALL, file: str = "net.onnx") -> FileFolding:
    return pipeline.fold_file(FileFoldRequest(Path(file), Path("x.npz"), bound, latency=SHORT))


def outputs(file: str, half: int) -> np.ndarray:
    """The first output of a file over one of the halves, in ONNX Runtime without its own rewriting."""
    model = onnx.load(file)
    samples = halves(onnx.load("net.onnx"), Path("x.npz"), "--inputs")[half]
    ran = numerics.runner(model)
    return np.concatenate([next(iter(ran(feed).values())) for feed in samples.feeds])


def run_printed(told: FileFolding) -> str:
    """What the commands that are printed write, run as a shell would read them: the folded file."""
    for printed in told.commands:
        name, *words = shlex.split(printed)
        ended = CliRunner().invoke(program, words)
        assert (name, ended.exit_code) == ("sesurgery", 0), ended.output
    return "net.folded.onnx"


def test_flips_are_those_of_the_file_that_the_printed_command_writes(folder: Path) -> None:
    write(CLASSES, "float[N,5]")
    with_labels(numerics.runner(onnx.load("net.onnx"))({"x": np.load("x.npz")["x"]})["y"].argmax(1))
    before = sorted(Path().rglob("*"))
    told = folded()
    assert sorted(Path().rglob("*")) == before
    assert told.engine is not None
    assert told.engine.flips is not None
    flips = told.engine.flips
    net = run_printed(told)
    assert len(squeezes(Dataflow(onnx.load(net)))) == 0
    counted, measured = (
        int((outputs("net.onnx", half).argmax(1) != outputs(net, half).argmax(1)).sum()) for half in (0, 1)
    )
    assert (flips.predicted.flips.hits, flips.predicted.flips.samples) == (counted, 20)
    assert (flips.measured.hits, flips.measured.samples) == (measured, 20)
    # A gate that is far from constant decides answers: the figures are not those of nothing.
    assert 0 < measured < 20
    assert flips.as_predicted == (measured <= flips.predicted.most)
    # The labels are its own answers, so each that flips is wrong now.
    assert flips.scored is not None
    assert flips.scored.top1 == pytest.approx((1, 1 - measured / 20))
    wanted, found = outputs("net.onnx", 1), outputs(net, 1)
    assert told.engine.change == pytest.approx(np.abs(wanted - found).max() / np.abs(wanted).max(), rel=1e-3)
    assert told.engine.latency.low <= told.engine.latency.value <= told.engine.latency.high


def test_gates_of_a_runs_file_have_the_names_and_distances_of_the_table(here: Path) -> None:
    plant_constants(Path("runs/tiny"), 0, 2)
    data = data_of(checkpoint.read_spec(Path("runs/tiny"), pipeline.catalogs())).held_out
    np.savez("x.npz", input=data.images[:80].numpy(), labels=data.labels[:80].numpy())
    file = pipeline.export(Path("runs/tiny"), Workspace()).path
    table = pipeline.gates_of_file(file, Path("x.npz"))
    engines = sorted(Path("engines").iterdir())
    told = folded(None, file.as_posix())
    assert [gate.key for gate in told.gates] == [block.key for block in table.blocks]
    assert [gate.folded for gate in told.gates] == [True, False, True]
    # The table is of all samples, of which half decide.
    for gate, block in zip(told.gates, table.blocks, strict=True):
        assert 0 < gate.within <= block.constant_within + 1e-5
    assert told.left == ()
    assert (told.deciding, told.held_out, told.labelled) == (40, 40, True)
    assert sorted(Path("engines").iterdir()) == engines
    text = to_text(told)
    assert "2 gates folded in an engine of onnxruntime fp32:" in text
    assert "40 samples decide and predict flips, 40 others measure them" in text
    assert "half of each label in either" in text
    assert "an answer is the class of the largest value of output " in text
    assert f"  {told.commands[0]}\n" in text


def test_a_sequence_flips_where_any_of_its_positions_does(folder: Path) -> None:
    write(SEQUENCE, "float[N,16,8]")
    with_labels(np.zeros(40, np.int64))
    told = folded()
    assert told.engine is not None
    assert told.engine.flips is not None
    assert told.engine.flips.answering == Answering("y", sequence=True)
    net = run_printed(told)
    differ = outputs("net.onnx", 1).argmax(2) != outputs(net, 1).argmax(2)
    assert told.engine.flips.measured.hits == differ.any(1).sum() > 0
    # Each sample counts once.
    assert differ.sum() > differ.any(1).sum()
    assert told.engine.flips.scored is None
    assert "top-1: it is not told, for a label is one class and an answer a sequence of them" in to_text(told)


@pytest.mark.parametrize(("ends", "output"), [("y = Relu(s)", "8,4,4"), ("y = Reshape(s, rows)", "8,16")])
def test_where_no_answer_can_be_told_the_change_of_the_outputs_is(ends: str, output: str, folder: Path) -> None:
    """Maps, and rows that are no probabilities, as boxes are not."""
    write(ends, f"float[N,{output}]")
    told = folded()
    assert told.engine is not None
    assert told.engine.flips is None
    net = run_printed(told)
    wanted, found = outputs("net.onnx", 1), outputs(net, 1)
    change = np.abs(wanted - found).max() / np.abs(wanted).max()
    assert told.engine.change == pytest.approx(change, rel=1e-3)
    assert 0 < change < 5 * ALL
    shape = output.replace(",", "x")
    text = to_text(told)
    assert "answers: no flip can be told: no output has a row of classes for each sample, or a sequence of" in text
    assert f"('y' is 20x{shape})" in text
    assert f"outputs: they change by up to {told.engine.change:.2g} of the largest value" in text
    assert to_json(told)["engine"]["flips"] is None  # type: ignore[index]


def test_where_no_gate_is_constant_nothing_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_module, "build", lambda request: pytest.fail("an engine was built"))
    write(CLASSES, "float[N,5]")
    told = folded(None)
    assert (told.engine, told.commands) == (None, ())
    (gate,) = told.gates
    assert (gate.key, gate.folded) == ("s", False)
    assert gate.within > told.bound == 0.01
    assert to_text(told).splitlines()[-1] == "no gate may be folded"
    assert to_json(told)["engine"] is None


def test_the_default_bound_needs_no_word_in_the_command(folder: Path) -> None:
    write(CLASSES, "float[N,5]", spread=1e-3)
    told = folded(None)
    assert [gate.folded for gate in told.gates] == [True]
    lower = "sesurgery lower net.onnx -o net.folded.onnx --for onnxruntime --passes constant_gates"
    assert told.commands[0] == f"{lower} --calibration x.npz --half"


def test_names_that_the_shell_reads_are_quoted(folder: Path) -> None:
    write(CLASSES, "float[N,5]")
    Path("a net.onnx").write_bytes(Path("net.onnx").read_bytes())
    told = folded(ALL, "a net.onnx")
    assert "'a net.onnx' -o 'a net.folded.onnx'" in told.commands[0]
    assert "--passes 'constant_gates(bound=0.5)'" in told.commands[0]
    run_printed(told)
    assert Path("a net.folded.onnx").is_file()


@pytest.mark.parametrize(("batch", "samples", "least"), [("N", 3, 4), ("4", 4, 8)])
def test_too_few_samples_are_refused(batch: str, samples: int, least: int, folder: Path) -> None:
    write(CLASSES, f"float[{batch},5]", batch=batch, samples=samples)
    with pytest.raises(SesurgeryError, match=rf"SE606.*x.npz holds too few samples, {samples}") as caught:
        folded()
    assert caught.value.diagnostics[0].hint == f"give at least {least}"


def test_a_file_of_a_fixed_batch_is_split_and_raced_in_whole_batches(folder: Path) -> None:
    write(CLASSES, "float[4,5]", batch="4", samples=14)
    told = folded()
    assert (told.deciding, told.held_out) == (4, 8)
    assert told.engine is not None
    assert told.engine.batch == 4
    assert told.engine.flips is not None
    assert told.engine.flips.measured.samples == 8


@pytest.mark.parametrize("labels", [None, [0] * 11 + [1] * 6 + [2] * 23])
def test_halves_share_no_sample_and_have_equally_many_of_each_label(labels: list[int] | None, folder: Path) -> None:
    write(CLASSES, "float[N,5]")
    np.savez("x.npz", x=np.arange(40, dtype=np.float32)[:, None, None, None] + np.zeros((1, 4, 6, 6), np.float32))
    if labels is not None:
        with_labels(np.array(labels))
    first, second = halves(onnx.load("net.onnx"), Path("x.npz"), "--inputs")
    own = [half.arrays["x"][:, 0, 0, 0].astype(int).tolist() for half in (first, second)]
    assert sorted(own[0] + own[1]) == list(range(40))
    # At random: not the first half and not every second one.
    assert own[0] not in (list(range(20)), list(range(0, 40, 2)), list(range(1, 40, 2)))
    if labels is None:
        assert first.labels is None
        return
    for half, positions in zip((first, second), own, strict=True):
        assert half.labels.tolist() == [labels[position] for position in positions]
    counts = [np.bincount(half.labels, minlength=3) for half in (first, second)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_the_first_output_with_classes_answers() -> None:
    maps, one, scores = np.zeros((3, 8, 4, 4), np.float32), np.zeros((3, 1), np.float32), np.eye(3, 5, dtype=np.float32)
    best = np.zeros((3, 5), np.int64)
    told = answering({"maps": maps, "one": one, "best": best, "scores": scores, "more": scores}, 3)
    assert told == Answering("scores")
    assert told.answers({"scores": scores}).tolist() == [0, 1, 2]
    # Logarithms of probabilities are a sequence's too.
    rows = np.log(np.full((3, 7, 4), 0.25, np.float32))
    assert answering({"maps": maps, "rows": rows}, 3) == Answering("rows", sequence=True)
    assert isinstance(answering({"rows": rows}, 6), str)
