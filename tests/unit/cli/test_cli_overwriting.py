"""No verb destroys what is there: what its input needs is never a target, another file only with --force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from strangers import rewrite

from sesurgery.onnxgraph import io as onnx_io

NET = """<ir_version: 10, opset_import: ["": 20]>
g (float[batch,3,8,8] x) => (float[batch,64,8,8] y) {
    c = Conv<pads=[1,1,1,1]>(x, w)
    y = Relu(c)
}"""


def network(path: str, location: str | None = None) -> Path:
    """A file with its weights in it, or in another file."""
    model = onnx.parser.parse_model(NET)
    values = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(np.float32)
    weight = numpy_helper.from_array(values, "w")
    if location is not None:
        data = Path(path).parent / location
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        weight.external_data.add(key="length", value=str(values.nbytes))
    model.graph.initializer.append(weight)
    Path(path).write_bytes(model.SerializeToString())
    return Path(path)


def snapshot() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}


SPEC = """\
version: 1
model: {source: onnx, name: a.onnx}
input: {shape: [3, 8, 8]}
surgery:
  - insert: se
    at: conv
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("notes")
    Path("x.yaml").write_text(SPEC)
    return tmp_path


LOWER = ("lower", "a.onnx", "--for", "onnxruntime")
APPLY = ("apply", "x.yaml")


@pytest.mark.parametrize("verb", [LOWER, APPLY], ids=lambda words: words[0])
@pytest.mark.parametrize("force", [(), ("--force",)], ids=["plainly", "with force"])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("b.onnx.data", "b.onnx"),
        ("net.weights", "net.weights"),
        ("net.weights", "./there/../net.weights"),
        ("b.onnx.manifest.json", "b.onnx"),
        ("there/w", "there/w"),
        (None, "a.onnx"),
        ("w", "linked"),
    ],
)
def test_nothing_that_the_input_needs_is_a_target(location, target, force, verb, sesurgery, folder):
    network("a.onnx", location)
    Path("there").mkdir(exist_ok=True)
    Path("linked").symlink_to("w")
    before = snapshot()
    ended = sesurgery(*verb, "-o", target, *force)
    assert ended.code == 1
    assert "error[SE405]" in ended.err
    assert "is an input of the file that would replace it" in ended.err
    assert snapshot() == before


@pytest.mark.parametrize("verb", [LOWER, APPLY], ids=lambda words: words[0])
def test_another_file_is_replaced_only_with_force(verb, sesurgery, folder):
    network("a.onnx")
    before = snapshot()
    ended = sesurgery(*verb, "-o", "notes.txt")
    assert (ended.code, "error[SE405]" in ended.err, "--force" in ended.err) == (1, True, True), ended.err
    assert snapshot() == before
    ended = sesurgery(*verb, "-o", "notes.txt", "--force")
    assert ended.code == 0, ended.err
    onnx.checker.check_model("notes.txt")
    # It is ours now.
    assert sesurgery(*verb, "-o", "notes.txt").code == 0


@pytest.mark.parametrize("verb", [LOWER, APPLY], ids=lambda words: words[0])
def test_weights_of_another_network_beside_the_target_stay(verb, sesurgery, folder):
    network("a.onnx")
    network("other.onnx", "b.onnx.data")
    before = Path("b.onnx.data").read_bytes()
    assert sesurgery(*verb, "-o", "b.onnx").code == 1
    assert sesurgery(*verb, "-o", "b.onnx", "--force").code == 0
    # Not needed, and so not taken away either: only the weights of the file that lay there are.
    assert Path("b.onnx.data").read_bytes() == before
    assert onnx_io.beside(Path("b.onnx")) == ()


@pytest.mark.parametrize("place", ["../victim", "/tmp/victim", ".", "..", "link/victim"])
def test_weights_outside_the_files_folder_are_not_read(place, sesurgery, folder):
    inner = folder / "inner"
    inner.mkdir()
    Path("victim").write_bytes(bytes(64 * 27 * 4))
    (inner / "link").symlink_to(folder)
    network("a.onnx", "w")
    model = onnx.load("a.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = place
    (inner / "a.onnx").write_bytes(model.SerializeToString())
    for words in (
        ("lower", "inner/a.onnx", "--for", "onnxruntime", "-o", "b.onnx"),
        ("inspect", "inner/a.onnx"),
        ("build-engine", "inner/a.onnx"),
        ("build-engine", "inner/a.onnx", "--backend", "openvino"),
    ):
        ended = sesurgery(*words)
        assert ended.code == 1, words
        assert "error[SE408]: the data of 'w' in inner/a.onnx would lie outside inner/" in ended.err, ended.err


def test_an_engine_is_not_built_onto_the_weights_it_is_built_from(sesurgery, folder):
    Path("export").mkdir()
    network("export/a.onnx", "a.fp16.onnx.data")
    before = Path("export/a.fp16.onnx.data").read_bytes()
    ended = sesurgery("build-engine", "export/a.onnx", "--fp16")
    assert (ended.code, "error[SE405]" in ended.err) == (1, True), ended.err
    assert Path("export/a.fp16.onnx.data").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "x.yaml", "--svg"),
        ("schema", "-o"),
        ("init", "a.onnx", "-o"),
    ],
    ids=lambda words: words[0],
)
def test_every_verb_that_writes_to_a_path_asks_first(words, sesurgery, folder):
    network("a.onnx")
    before = snapshot()
    ended = sesurgery(*words, "notes.txt")
    assert (ended.code, "error[SE405]" in ended.err) == (1, True), ended.err
    assert snapshot() == before
    ended = sesurgery(*words, "notes.txt", "--force")
    assert ended.code == 0, ended.err
    assert Path("notes.txt").read_text() != "notes"
    # A spec is edited once it is begun; a picture and a schema are only made again.
    assert sesurgery(*words, "notes.txt").code == (1 if words[0] == "init" else 0)


@pytest.mark.parametrize(
    "words", [("evaluate", "x"), ("compare", "x", "y"), ("gates", "x")], ids=lambda words: words[0]
)
def test_a_picture_of_runs_replaces_nothing_without_force(words, sesurgery, folder):
    Path("mine.png").write_text("mine")
    ended = sesurgery(*words, "--picture", "mine.png")
    assert (ended.code, "error[SE405]: mine.png is already there" in ended.err) == (1, True), ended.err
    # Then it is the run that is missing.
    assert "error[SE402]: x is not a run" in sesurgery(*words, "--picture", "mine.png", "--force").err
    assert Path("mine.png").read_text() == "mine"


@pytest.mark.parametrize("words", [("plan", "x.yaml", "--svg"), ("init", "a.onnx", "-o")], ids=lambda words: words[0])
def test_a_picture_and_a_spec_never_replace_the_network(words, sesurgery, folder):
    network("a.onnx", "w")
    before = snapshot()
    for target in ("a.onnx", "w"):
        ended = sesurgery(*words, target, "--force")
        assert (ended.code, "error[SE405]" in ended.err) == (1, True), ended.err
    assert snapshot() == before


@pytest.mark.parametrize("words", [("lower", "a.onnx", "--for", "onnxruntime", "-o"), ("schema", "-o")], ids=str)
def test_a_folder_or_a_device_as_target_is_the_users_mistake(words, sesurgery, folder):
    network("a.onnx")
    for target in (".", "/dev/full"):
        ended = sesurgery(*words, target, "--force")
        assert (ended.code, "error[SE405]" in ended.err) == (1, True), ended.err


NAMES = ["../victim", "..", ".", "/tmp/victim", "a/b", ".git", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_package_stays_inside_its_repository(name, sesurgery, here):
    engine = "engines/tiny.onnxruntime.fp32.onnx"
    ended = sesurgery("package", engine, "--triton", "repository", "--name", name or " ")
    if name:
        assert (ended.code, "error[SE408]" in ended.err) == (1, True), ended.err
        rewrite(Path(engine), details={"onnx": f"../export/{name}"})
        ended = sesurgery("package", engine, "--triton", "repository")
        # Of a path the last part is the name.
        assert ended.code == (0 if name.rpartition("/")[2].isalpha() else 1), ended.err
    assert {path.name for path in here.iterdir()} <= {"tiny.yaml", "runs", "export", "engines", "repository"}
    assert not Path("/tmp/victim").exists()


@pytest.mark.parametrize("place", ["../../../victim", "../victim", "/tmp/victim"])
def test_packaging_writes_no_weights_outside_the_repository(place, sesurgery, here):
    """The file that an engine was built from is somebody else's, and names its weights by a path that leads out."""
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    parent = Path("export/tiny.onnx")
    network(str(parent), "w")
    model = onnx.load(parent, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = place
    parent.write_bytes(model.SerializeToString())
    victim = Path("victim")
    victim.write_text("mine")
    from sesurgery.artifacts import digest_file

    rewrite(engine, parents=[{"path": "../export/tiny.onnx", "sha256": digest_file(parent)}])
    ended = sesurgery("package", str(engine), "--triton", "repository")
    assert (ended.code, "error[SE408]" in ended.err) == (1, True), ended.err
    assert victim.read_text() == "mine"
    assert not Path("/tmp/victim").exists()


def test_weights_in_a_folder_of_their_own_are_packaged_as_they_lie(sesurgery, folder):
    network("a.onnx", "weights/w")
    assert sesurgery("build-engine", "a.onnx", "--fp32").code == 0
    ended = sesurgery("package", "engines/a.onnxruntime.fp32.onnx", "--triton", "repository")
    assert ended.code == 0, ended.err
    onnx.checker.check_model("repository/a/1/model.onnx")
    assert Path("repository/a/1/weights/w").read_bytes() == Path("weights/w").read_bytes()
