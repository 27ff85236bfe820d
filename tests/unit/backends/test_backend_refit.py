"""Engines that are built without weights, or to take others: what they get, from which file, and what is refused.

TensorRT stands in as pretend_refit.py, whose engines are JSON; lowering, manifests and the program are real. That such
an engine also answers rightly is shown by pretend_gpu.py, and on a GPU by tests/gpu/test_tensorrt.py.
"""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pretend_refit
import pytest
from filled_graphs import filled
from onnx import numpy_helper

from sesurgery import pipeline
from sesurgery.backends.base import BuildReport, Capability
from sesurgery.backends.inputs import onnx_network as weights
from sesurgery.backends.nvidia import cuda
from sesurgery.backends.nvidia.loaded import Loaded
from sesurgery.backends.tensorrt import TensorRT
from sesurgery.cli import main
from sesurgery.diagnostics import SesurgeryError
from sesurgery.serving.loadable import backend_of
from sesurgery.workspace import read_manifest, require_intact

NET = """<ir_version: 10, opset_import: ["": 20]> g (float[batch,3,8,8] x) => (float[batch,4,8,8] y) <
    float[4,3,3,3] stem, float[2,4,1,1] down, float[4,2,1,1] up, float low = {0}, float high = {6}
> {
    s = Conv<pads=[1,1,1,1]>(x, stem)
    m = Clip(s, low, high)
    squeeze = GlobalAveragePool(m)
    hidden = Conv(squeeze, down)
    active = Relu(hidden)
    raised = Conv(active, up)
    gate = Sigmoid(raised)
    y = Mul(m, gate)
}"""


def network(seed: int = 0, text: str = NET) -> onnx.ModelProto:
    return filled(onnx.parser.parse_model(text), seed)


class Library:
    """As much of TensorRT as loads an engine."""

    ILogger = SimpleNamespace
    TensorIOMode = SimpleNamespace(INPUT=1, OUTPUT=2)

    class Runtime:
        def __init__(self, log) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> pretend_refit.Refittable:
            engine = pretend_refit.Refittable()
            engine._hold(plan)
            engine.num_io_tensors, engine.num_optimization_profiles = 0, 1
            engine.create_execution_context = lambda: object()
            return engine


class Logger:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"


class Nothing:
    """A device on which nothing runs."""

    active = staticmethod(contextlib.nullcontext)

    def stream(self) -> int:
        return 1

    def synchronize(self, stream: int) -> None:
        pass

    def forget_stream(self, stream: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a TensorRT with a GPU."""

    def build(self, source, out, options, progress=None) -> BuildReport:
        out.parent.mkdir(exist_ok=True)
        refittable = self.refit or self.stripped
        out.write_bytes(pretend_refit.plan(source, stripped=self.stripped, refittable=refittable))
        return BuildReport(0.5, {options.precision: 3}, "Pretend GPU", (*self.remarks(), "another note"))

    library = SimpleNamespace(ILogger=Logger, **{name: getattr(Library, name) for name in ("TensorIOMode", "Runtime")})
    for name, value in pretend_refit.API.items():
        setattr(library, name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TensorRT, "probe", lambda self: Capability("11.4.0", None, None))
    monkeypatch.setattr(TensorRT, "library", lambda self: library)
    monkeypatch.setattr(TensorRT, "device", lambda self: "Pretend GPU")
    monkeypatch.setattr(TensorRT, "build", build)
    monkeypatch.setattr(cuda, "open_device", Nothing)
    onnx.save(network(), "net.onnx")
    return tmp_path


def built(precision: str = "fp16", **options) -> Path:
    wanted = pipeline.engine({"backend": {"backend": "tensorrt", **options}, "precision": precision})
    return pipeline.build_engine(pipeline.BuildRequest(Path("net.onnx"), wanted, pipeline.Workspace())).path


def put(engine: Path, onnx_file: str | None = None, target: str = "out.engine"):
    given = Path(onnx_file) if onnx_file else None
    return pipeline.refit(pipeline.RefitRequest(engine, Path(target), pipeline.Workspace(), given))


def held(engine: Path) -> dict[str, list]:
    """The weights that an engine has once it is loaded as its manifest says."""
    with backend_of(read_manifest(engine)).load(engine) as runner:
        return runner.engine.weights


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(SesurgeryError) as raised:
        do()
    return str(raised.value)


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}


LOWERED = Path("export/net.tensorrt.fp16.onnx")


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_stripped_engine_is_loaded_with_the_weights_of_the_file_it_was_built_from() -> None:
    engine = built(stripped=True)
    assert json.loads(engine.read_bytes())["weights"] is None
    assert held(engine) == pretend_refit.weights_of(LOWERED)
    assert "it takes them from its ONNX file when it is loaded" in read_manifest(engine).details.notes[0]


def test_an_engine_with_its_weights_needs_no_file_and_gets_none() -> None:
    engine = built(refit=True)
    expected = pretend_refit.weights_of(LOWERED)
    shutil.rmtree("export")
    assert held(engine) == expected


def test_the_file_may_have_come_with_the_engine() -> None:
    engine = built(stripped=True)
    expected = held(engine)
    shutil.move(LOWERED, engine.parent)
    assert held(engine) == expected


def test_what_is_written_beside_the_network_is_of_no_account() -> None:
    engine = built(stripped=True)
    expected = held(engine)
    model = onnx.load(LOWERED)
    model.doc_string = "opened and saved"
    onnx.save(model, LOWERED)
    assert held(engine) == expected


@dataclass(frozen=True)
class Spoiled:
    name: str
    change: Callable[[onnx.ModelProto], object]


def another_value(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "stem")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, "stem"))


def another_limit(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "high")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, "high"))


def another_padding(model: onnx.ModelProto) -> None:
    (attribute,) = next(node for node in model.graph.node if node.op_type == "Conv").attribute
    attribute.ints[:] = [1, 1, 1, 0]


SPOILED = [
    Spoiled("another value", another_value),
    Spoiled("another limit", another_limit),
    Spoiled("another padding", another_padding),
]


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled.name)
def test_a_file_that_was_changed_gives_no_weights(spoiled: Spoiled) -> None:
    engine = built(precision="fp32", stripped=True)
    (source,) = read_manifest(engine).parent_files(engine)
    model = onnx.load(source)
    spoiled.change(model)
    onnx.save(model, source)
    message = refused(lambda: held(engine))
    assert f"error[SE603]: {engine} has no weights, and {source}, which has them, was changed since" in message
    assert f"or build again: `{read_manifest(engine).command}`" in message


def test_weights_outside_the_file_are_looked_at_too() -> None:
    engine = built(stripped=True)
    expected = held(engine)
    onnx.save(onnx.load(LOWERED), LOWERED, save_as_external_data=True, location="beside.data", size_threshold=0)
    assert held(engine) == expected
    data = LOWERED.with_name("beside.data")
    data.write_bytes(bytes(len(data.read_bytes())))
    assert "was changed since" in refused(lambda: held(engine))


@pytest.mark.parametrize("what", ["the file", "the manifest"])
def test_without_its_file_or_its_manifest_a_stripped_engine_is_not_run(what: str) -> None:
    engine = built(stripped=True)
    if what == "the file":
        shutil.rmtree("export")
        message = refused(lambda: held(engine))
        assert f"error[SE603]: {engine} has no weights, and {LOWERED}, which has them, is gone" in message
    else:
        engine.with_name(f"{engine.name}.manifest.json").unlink()
        message = refused(lambda: TensorRT(stripped=True).load(engine))
        assert f"error[SE603]: {engine} has no weights, and no manifest that says which ONNX file has them" in message


def test_a_file_can_be_named_where_there_is_no_manifest() -> None:
    engine = built(stripped=True)
    engine.with_name(f"{engine.name}.manifest.json").unlink()
    with TensorRT(stripped=True).load(engine, weights=LOWERED) as runner:
        assert runner.engine.weights == pretend_refit.weights_of(LOWERED)


# --- what the library says --------------------------------------------------------------------------------------------


def without(name: str) -> bytes:
    model = network()
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.name = "renamed"
    for node in model.graph.node:
        node.input[:] = ["renamed" if given == name else given for given in node.input]
    return model.SerializeToString()


def not_a_number() -> bytes:
    model = network()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "up")
    tensor.CopyFrom(numpy_helper.from_array(np.full((4, 2, 1, 1), np.nan, np.float32), "up"))
    return model.SerializeToString()


WRONG = {
    "a weight is not there": (
        without("down"),
        "refit failed: Only successfully refitted 2 weights out of 3; missing: 'down'",
    ),
    "no ONNX file": (b"garbage", "model deserialize failed: Failed to parse the ONNX model: wrong.onnx"),
    "weights that are none": (not_a_number(), "cannot take the weights of wrong.onnx: refit.cpp: weights contain NaN"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_library_does_not_take_is_said_in_its_words_and_nothing_is_written(case: str) -> None:
    engine = built(precision="fp32", refit=True)
    content, words = WRONG[case]
    Path("wrong.onnx").write_bytes(content)
    before = files()
    message = refused(lambda: TensorRT(refit=True).put_weights(engine, Path("wrong.onnx"), Path("out.engine")))
    assert words in message
    assert files() == before


def test_an_engine_that_takes_no_weights_says_how_to_build_one_that_does() -> None:
    engine = built()
    message = refused(lambda: TensorRT().put_weights(engine, LOWERED, Path("out.engine")))
    assert "error[SE603]: the engine was not built to take weights: TensorRT cannot refit it" in message


def test_a_library_that_gives_no_refitter_is_an_error(monkeypatch) -> None:
    engine = built(refit=True)
    library = TensorRT().library()
    monkeypatch.setattr(library, "Refitter", lambda *_: pretend_refit.Refitter(SimpleNamespace(refittable=False), None))
    message = refused(lambda: TensorRT(refit=True).put_weights(engine, LOWERED, Path("out.engine")))
    assert "error[SE603]: TensorRT cannot refit the engine: no reason given" in message


# --- the verb ---------------------------------------------------------------------------------------------------------


def test_a_stripped_engine_gets_its_weights_for_good() -> None:
    engine = built(stripped=True)
    done = put(engine)
    assert (done.changed, done.source) == (False, LOWERED)
    shutil.rmtree("export")
    assert held(done.path)["stem"]
    assert done.path.stat().st_size > 2 * engine.stat().st_size
    manifest = require_intact(done.path)
    assert manifest.details.engine.backend.model_extra["stripped"] is False
    assert manifest.details.notes == ("another note",)
    assert manifest.command == f"sesurgery refit {engine} --onnx {LOWERED} -o out.engine"
    # What it was stripped of is all that it takes.
    assert "was not built to take weights" in refused(lambda: put(done.path, target="again.engine"))


def test_an_engine_gets_new_weights_of_a_file_that_is_lowered_as_its_own_was() -> None:
    engine = built(refit=True)
    old = held(engine)
    onnx.save(network(seed=1), "net.onnx")
    done = put(engine, "net.onnx", str(engine))
    assert (done.changed, done.path, done.source) == (True, engine, LOWERED)
    new = held(engine)
    assert new == pretend_refit.weights_of(LOWERED)
    assert new != old
    assert set(done.manifest.parent_files(done.path)) == {LOWERED}
    require_intact(LOWERED)
    # As good as one that was built of that file, and open to the next weights.
    wanted = pipeline.engine({"backend": {"backend": "tensorrt", "refit": True}, "precision": "fp16"})
    assert pipeline.build_engine(pipeline.BuildRequest(Path("net.onnx"), wanted, pipeline.Workspace())).why is None
    onnx.save(network(seed=2), "net.onnx")
    assert put(engine, "net.onnx", str(engine)).changed


def test_a_file_that_is_lowered_already_is_taken_as_it_is() -> None:
    engine = built(refit=True)
    shutil.copy(LOWERED, "mine.onnx")
    done = put(engine, "mine.onnx")
    assert (done.changed, done.source) == (False, Path("mine.onnx"))


def test_an_engine_that_was_only_stripped_takes_no_other_weights() -> None:
    engine = built(stripped=True)
    onnx.save(network(seed=1), "new.onnx")
    before = files()
    message = refused(lambda: put(engine, "new.onnx"))
    assert f"error[SE603]: {engine} takes no weights but those it was built of, and new.onnx has others" in message
    assert "-O refit=true" in message
    assert files() == before


ANOTHER = {
    "without a weight": (without("down"), "it lacks 'down'"),
    "wider": (
        network(text=NET.replace("2,4,1,1", "3,4,1,1").replace("4,2,1,1", "4,3,1,1")).SerializeToString(),
        "'down' is float [3, 4, 1, 1] in it, and float [2, 4, 1, 1] in the engine",
    ),
    "another activation": (
        network(text=NET.replace("Relu(hidden)", "Elu(hidden)")).SerializeToString(),
        "its operations, shapes or constants are others",
    ),
}


@pytest.mark.parametrize("case", ANOTHER)
def test_a_file_of_another_network_is_refused_and_nothing_is_written(case: str) -> None:
    engine = built(refit=True)
    content, words = ANOTHER[case]
    Path("net.onnx").write_bytes(content)
    before = files()
    message = refused(lambda: put(engine, "net.onnx", str(engine)))
    assert f"error[SE603]: net.onnx is not of the network that the engine was built for: {words}" in message
    assert files() == before


def test_engines_that_take_no_weights_are_refused_by_the_verb() -> None:
    assert "was not built to take weights" in refused(lambda: put(built()))
    other = pipeline.engine({"backend": "onnxruntime"})
    engine = pipeline.build_engine(pipeline.BuildRequest(Path("net.onnx"), other, pipeline.Workspace())).path
    assert "is an engine of onnxruntime, whose weights cannot be replaced" in refused(lambda: put(engine))
    assert "SE402" in refused(lambda: put(built(refit=True), "gone.onnx"))


def program(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["sesurgery", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_program_says_what_was_put_in_and_where(monkeypatch, capsys) -> None:
    engine = built(stripped=True)
    code, out, err = program(monkeypatch, capsys, "refit", str(engine), "-o", "full.engine")
    assert (code, err) == (0, "")
    assert out == f"its own weights, from {LOWERED}; 0.0 MB -> full.engine\n"


def test_without_a_gpu_the_program_says_so_and_writes_nothing(monkeypatch, capsys) -> None:
    engine = built(refit=True)
    onnx.save(network(seed=1), "net.onnx")
    before = files()
    no_gpu = Capability("11.4.0", None, "no CUDA driver: libcuda is not on this machine", cuda.REMEDY)
    monkeypatch.setattr(TensorRT, "probe", lambda self: no_gpu)
    code, out, err = program(monkeypatch, capsys, "refit", str(engine), "--onnx", "net.onnx", "-o", "out.engine")
    assert (code, out) == (1, "")
    assert f"error[SE603]: TensorRT cannot put weights into {engine} here: it loads an engine on a GPU only" in err
    assert "no CUDA driver" in err
    assert files() == before


def test_a_server_is_not_given_an_engine_without_weights() -> None:
    engine = built(stripped=True)
    message = refused(lambda: pipeline.package(engine, Path("models")))
    assert f"error[SE603]: {engine} has no weights, and Triton would not put them in" in message
    assert not Path("models").exists()


# --- what a network is ------------------------------------------------------------------------------------------------


def test_weights_of_one_network_differ_in_their_values_alone() -> None:
    onnx.save(network(seed=1), "other.onnx")
    one, other = weights.read(Path("net.onnx")), weights.read(Path("other.onnx"))
    assert one.structure == other.structure
    assert one.values != other.values
    assert one.difference(other) is None
    assert one.weights == {"stem": "float [4, 3, 3, 3]", "down": "float [2, 4, 1, 1]", "up": "float [4, 2, 1, 1]"}


def test_an_engine_that_fails_to_load_is_let_go() -> None:
    engine = built(refit=True)
    Path("wrong.onnx").write_bytes(b"garbage")
    kept: list[Loaded] = []
    with pytest.MonkeyPatch.context() as patch:
        forget = Loaded.forget
        patch.setattr(Loaded, "forget", lambda self: (kept.append(self), forget(self))[1])
        refused(lambda: TensorRT(refit=True).put_weights(engine, Path("wrong.onnx"), Path("out.engine")))
    assert kept
    assert all(loaded.engine is None for loaded in kept)
