"""The runner on a CUDA driver that is none: run by test_backend_nvidia_runner.py, in a process that finds it.

    cc -shared -fPIC -D_GNU_SOURCE -Wl,-soname,libcuda.so.1 -o DIR/libcuda.so.1 fake_driver.c
    LD_LIBRARY_PATH=DIR pytest pretend_gpu.py

The packages that talk to the driver are the real cuda-bindings, and pycuda or what stands for it. TensorRT stands in as
an engine whose kernel doubles its input. The driver writes down every mistake: what is used after it was given back,
given back twice, never given back, not waited for, not on a stream, not in a context.
"""

import ctypes
import gc
import importlib.util
import subprocess
import sys
import threading
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pretend_refit
import pytest

from sesurgery.backends.base import Capability
from sesurgery.backends.nvidia import cuda, with_bindings, with_pycuda
from sesurgery.backends.nvidia.runner import EVENTS, NvidiaRunner
from sesurgery.backends.tensorrt import TensorRT
from sesurgery.diagnostics import SesurgeryError

DRIVER = ctypes.CDLL("libcuda.so.1")
for function in ("mistakes", "forgive", "order", "kind"):
    getattr(DRIVER, f"fake_{function}").restype = ctypes.c_char_p
PYCUDA = importlib.util.find_spec("pycuda") is not None
FAILING = 40
"""A batch at which the engine says that it did not run."""
UNCAPTURABLE = 41
"""A batch at which the engine allocates while it runs, which no capture survives."""


def alive() -> dict[str, int]:
    kinds = {DRIVER.fake_kind(kind).decode(): DRIVER.fake_alive(kind) for kind in range(6)}
    return {kind: count for kind, count in kinds.items() if count}


def order() -> list[str]:
    return DRIVER.fake_order().decode().split()


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class Location(Enum):
    DEVICE = 1
    HOST = 2


class Context:
    """IExecutionContext"""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.profile = 0
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.runs = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profile, self.shape = profile_index, None
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.profiles[self.profile]
        self.shape = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def infer_shapes(self) -> list[str]:
        return [] if self.shape else ["x"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None
        return self.shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.shape is not None
        self.runs += 1
        if self.shape[0] == UNCAPTURABLE:
            place = ctypes.c_void_p()
            if DRIVER.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(4)):
                self.engine.log.log(Logger.ERROR, "cannot allocate while a stream is captured")
                return False
            DRIVER.cuMemFree_v2(place)
        ends = [ctypes.c_void_p(self.addresses[name]) for name in ("y", "x")]
        count = ctypes.c_size_t(int(np.prod(self.shape)))
        factor = ctypes.c_float(self.engine._factor)
        status = DRIVER.fake_scale(ctypes.c_void_p(stream_handle), *ends, count, factor)
        return status == 0 and self.shape[0] != FAILING

    def __del__(self) -> None:
        self.engine.gone.append(("context", DRIVER.fake_contexts()))


class Engine(pretend_refit.Refittable):
    """ICudaEngine"""

    num_io_tensors = 2
    refittable = False

    def __init__(self, log, profiles, gone, plan: bytes) -> None:
        self.log, self.profiles, self.gone = log, profiles, gone
        if plan != b"plan":
            self._hold(plan)
        self.num_optimization_profiles = len(profiles)

    @property
    def _factor(self) -> float:
        if not hasattr(self, "weights"):
            return 2
        return self.weights["w"][0] if self.weights else float("nan")

    def create_execution_context(self) -> Context:
        self.last = Context(self)
        made, self.last = self.last, None
        self.contexts = getattr(self, "contexts", 0) + 1
        return made

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def get_tensor_location(self, name: str) -> Location:
        return Location.DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name == "x", "outputs have no profile"
        return list(self.profiles[profile_index])

    def __del__(self) -> None:
        self.gone.append(("engine", DRIVER.fake_contexts()))


class Logger:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"


ONE = (((1, 3), (2, 3), (64, 3)),)
TWO = (((1, 3), (2, 3), (4, 3)), ((2, 3), (32, 3), (64, 3)))


def tensorrt(profiles=ONE, gone=None) -> SimpleNamespace:
    gone = [] if gone is None else gone

    class Runtime:
        def __init__(self, log) -> None:
            self.log = log

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if plan != b"plan" and not plan.startswith(b"{"):
                self.log.log(Logger.ERROR, "the plan is for another GPU")
                return None
            return Engine(self.log, profiles, gone, plan)

        def __del__(self) -> None:
            gone.append(("runtime", DRIVER.fake_contexts()))

    return SimpleNamespace(
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=Mode,
        TensorLocation=Location,
        nptype=lambda dtype: np.float32,
        **pretend_refit.API,
    )


def load(profiles=ONE, gone=None, plan: bytes = b"plan", **options) -> NvidiaRunner:
    device = cuda.open_device()
    try:
        return NvidiaRunner(tensorrt(profiles, gone), "TensorRT", plan, device, **options)
    except BaseException:
        device.close()
        raise


def batch(size: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(size * 3, dtype=np.float32).reshape(size, 3)}


def right(runner: NvidiaRunner, size: int) -> bool:
    return bool(np.array_equal(runner.infer(batch(size))["y"], 2 * batch(size)["x"]))


@pytest.fixture(autouse=True)
def every_mistake_counts():
    """After each test nothing is left, and the driver saw no mistake."""
    before = DRIVER.fake_mistakes()
    yield
    gc.collect()
    DRIVER.fake_limit(-1)
    assert DRIVER.fake_mistakes().removeprefix(before).decode() == ""
    assert alive() == {}
    # pycuda keeps its context, on the thread that imported it, until the program ends.
    held = 1 if with_pycuda.CONTEXT in sys.modules else 0
    assert (DRIVER.fake_contexts(), DRIVER.fake_depth()) == (held, held)


@pytest.fixture
def runner():
    with load() as made:
        yield made


def test_the_package_that_is_installed_is_the_one_that_is_used() -> None:
    device = cuda.open_device()
    device.close()
    assert type(device) is (with_pycuda.PycudaDevice if PYCUDA else with_bindings.BindingsDevice)
    assert "pycuda.autoinit" not in sys.modules


def test_the_gpu_is_named_with_what_it_can_do() -> None:
    assert cuda.obstacle() is None
    assert cuda.device_name() == "Pretend GPU, sm_86, CUDA 13.0"


def test_tensors_are_described_with_a_named_batch(runner: NvidiaRunner) -> None:
    assert [(info.name, info.shape, info.dtype) for info in runner.inputs] == [("x", ("batch", 3), "float32")]
    assert [(info.name, info.shape, info.dtype) for info in runner.outputs] == [("y", ("batch", 3), "float32")]


def test_every_batch_gets_its_own_answer(runner: NvidiaRunner) -> None:
    assert all(right(runner, size) for size in (4, 1, 16, 16, 16, 2, 2, 4))


def test_room_on_the_gpu_grows_and_stays(runner: NvidiaRunner) -> None:
    for size in (4, 16, 2, 16):
        runner.infer(batch(size))
        assert alive() == {"device memory": 2, "pinned memory": 2, "stream": 1}
    assert order().count("alloc") - order().count("free") == 2


def test_answers_do_not_change_when_the_next_ones_come(runner: NvidiaRunner) -> None:
    first = runner.infer(batch(2))["y"]
    runner.infer({"x": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(first, 2 * batch(2)["x"])


def test_a_feed_in_another_layout_is_put_right(runner: NvidiaRunner) -> None:
    given = np.asfortranarray(batch(4)["x"])
    np.testing.assert_array_equal(runner.infer({"x": given})["y"], 2 * given)


def test_the_first_run_is_plain_the_second_captured_and_the_next_launched(runner: NvidiaRunner) -> None:
    seen = []
    for _ in range(4):
        before = len(order())
        assert right(runner, 2)
        seen.append([word for word in order()[before:] if word in ("kernel", "capture", "launch")])
    assert seen == [["kernel"], ["capture", "kernel", "launch"], ["launch"], ["launch"]]


def test_a_graph_is_captured_again_when_the_shapes_change_and_only_then(runner: NvidiaRunner) -> None:
    before = order().count("capture")
    for size in (2, 2, 2, 5, 5, 5, 2, 2):
        assert right(runner, size)
        assert alive().get("executable graph", 0) <= 1
    assert order().count("capture") - before == 3


def test_without_graphs_there_are_none() -> None:
    before = order().count("capture")
    with load(cuda_graph=False) as runner:
        assert all(right(runner, 2) for _ in range(3))
    assert order().count("capture") == before


def test_an_engine_that_cannot_be_captured_runs_without_and_says_so(runner: NvidiaRunner) -> None:
    assert all(right(runner, UNCAPTURABLE) for _ in range(3))
    assert runner.notes == ("no CUDA graph: TensorRT cannot run: cannot allocate while a stream is captured",)
    # That one was the engine's.
    assert DRIVER.fake_forgive() == b"alloc: not allowed while a stream is captured\n"


@pytest.mark.parametrize("size", [0, 65])
def test_a_batch_outside_the_profile_is_refused_with_its_range(size: int, runner: NvidiaRunner) -> None:
    with pytest.raises(
        SesurgeryError, match=r"SE606.*'x' has (batch 65, the engine was built for 1 to 64|shape \[0, 3\])"
    ):
        runner.infer(batch(size))
    assert right(runner, 3)


def test_of_several_profiles_the_one_tuned_for_the_nearest_is_taken() -> None:
    with load(TWO) as runner:
        chosen = []
        for size in (1, 2, 4, 5, 64, 3, 3, 3):
            assert right(runner, size)
            chosen.append(runner.context.profile)
    assert chosen == [0, 0, 0, 1, 1, 0, 0, 0]


def test_a_shape_that_no_profile_takes_is_named_with_all_their_ranges() -> None:
    with load(TWO) as runner, pytest.raises(SesurgeryError) as raised:
        runner.infer(batch(65))
    assert str(raised.value) == (
        "error[SE606]: no profile of the engine takes input 'x' of shape [65, 3]\n"
        "  hint: profile 1: 'x' from [1, 3] to [4, 3]; profile 2: 'x' from [2, 3] to [64, 3]"
    )


@pytest.mark.parametrize("repeats", [1, EVENTS, EVENTS + 1, 3 * EVENTS - 1])
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_each_run_is_timed_once_and_nothing_but_it(repeats: int, cuda_graph: bool) -> None:
    with load(cuda_graph=cuda_graph) as runner:
        # The driver's clock ticks once for everything on a stream: the kernel and the event after it.
        np.testing.assert_allclose(runner.time(batch(2), repeats), np.full(repeats, 2e-3))
        assert runner.context.runs == (2 if cuda_graph else repeats + 1)


def test_timings_come_in_parts(runner: NvidiaRunner) -> None:
    found = runner.timings(batch(2), 7)
    for part in (found.host_to_device, found.compute, found.device_to_host):
        np.testing.assert_allclose(part, np.full(7, 2e-3))
    np.testing.assert_allclose(found.latency, np.full(7, 6e-3))
    medians = {name: float(np.median(part)) for name, part in found.parts.items() if name != "enqueue"}
    assert medians == pytest.approx({"latency": 6e-3, "h2d": 2e-3, "compute": 2e-3, "d2h": 2e-3})
    assert found.graph
    assert (found.enqueue > 0).all()
    assert found.enqueue.sum() < found.wall


def test_an_engine_that_does_not_load_gives_the_logged_reason() -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*TensorRT cannot load the engine: the plan is for another GPU"):
        load(plan=b"other")


def test_a_run_that_fails_is_an_error_and_the_next_one_is_right(runner: NvidiaRunner) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*TensorRT cannot run: no reason given"):
        runner.infer(batch(FAILING))
    assert right(runner, 4)


@pytest.mark.parametrize("allocations", [0, 1])
def test_no_room_on_the_gpu_is_said_in_cudas_words_and_nothing_is_lost(allocations: int, runner: NvidiaRunner) -> None:
    assert right(runner, 2)
    DRIVER.fake_limit(allocations)
    with pytest.raises(SesurgeryError, match=r"SE603.*out of memory"):
        runner.infer(batch(50))
    DRIVER.fake_limit(-1)
    assert right(runner, 2)
    assert right(runner, 50)


class Foreign:
    """An array of somebody else's on the GPU."""

    def __init__(self, values: np.ndarray, strides: tuple[int, ...] | None = None, stream: int | None = None) -> None:
        self.place = ctypes.c_void_p()
        self.device = cuda.open_device()
        with self.device.active():
            self.address = self.device.allocate(values.nbytes)
        ctypes.memmove(self.address, values.ctypes.data, values.nbytes)
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.address, False),
            "strides": strides,
            "stream": stream,
            "version": 3,
        }

    def close(self) -> None:
        self.device.close()


class Packed:
    """The same through DLPack, whose capsule numpy makes of host memory, which is device memory here."""

    def __init__(self, foreign: Foreign, like: np.ndarray) -> None:
        size = int(np.prod(like.shape))
        self.view = np.ctypeslib.as_array((ctypes.c_float * size).from_address(foreign.address)).reshape(like.shape)

    def __dlpack__(self, *, stream: int) -> object:
        return self.view.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


@pytest.mark.parametrize("way", ["interface", "dlpack"])
def test_what_is_on_the_gpu_is_taken_from_there(way: str, runner: NvidiaRunner) -> None:
    given = batch(4)["x"] + 5
    foreign = Foreign(given)
    for _ in range(3):
        before = len(order())
        feed = foreign if way == "interface" else Packed(foreign, given)
        np.testing.assert_array_equal(runner.infer({"x": feed})["y"], 2 * given)
        assert "upload" not in order()[before:]
    foreign.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (4, 16)}, "not in C layout"),
        ({"typestr": "<f8"}, "has dtype float64"),
        ({"shape": (4, 4)}, "shape"),
    ],
)
def test_what_is_on_the_gpu_must_fit_like_any_feed(change, message: str, runner: NvidiaRunner) -> None:
    foreign = Foreign(batch(4)["x"])
    foreign.__cuda_array_interface__ |= change
    with pytest.raises(SesurgeryError, match=rf"SE606.*{message}"):
        runner.infer({"x": foreign})
    foreign.close()


def test_somebody_elses_stream_is_waited_for(runner: NvidiaRunner) -> None:
    other = cuda.open_device()
    with other.active():
        stream = other.stream()
    foreign = Foreign(batch(4)["x"], stream=stream)
    before = order().count("wait")
    assert np.array_equal(runner.infer({"x": foreign})["y"], 2 * batch(4)["x"])
    assert order().count("wait") == before + 2
    foreign.close()
    other.close()


@pytest.mark.parametrize("first", [0, 1])
def test_two_contexts_of_one_engine_end_in_any_order(first: int) -> None:
    runners = [load()]
    runners.append(runners[0].another())
    assert all(right(runner, 2) for _ in range(2) for runner in runners)
    assert alive()["executable graph"] == 2
    runners[first].close()
    assert alive() == {"device memory": 2, "pinned memory": 2, "stream": 1, "executable graph": 1}
    runners[first] = runners[1 - first].another()
    assert all(right(runner, size) for size in (2, 2, 3) for runner in runners)
    runners[first].close()
    assert alive() == {"device memory": 2, "pinned memory": 2, "stream": 1}
    assert right(runners[1 - first], 4)
    runners[1 - first].close()


def test_two_contexts_serve_two_threads() -> None:
    answers: dict[int, bool] = {}
    with load() as one, one.another() as two:

        def serve(number: int, runner: NvidiaRunner) -> None:
            answers[number] = all(right(runner, size) for size in (number, number, number, 7))

        for number, runner in ((3, one), (5, two)):
            thread = threading.Thread(target=serve, args=(number, runner))
            thread.start()
            thread.join()
    assert answers == {3: True, 5: True}


@pytest.mark.parametrize("way", ["close", "close twice", "with", "forgotten"])
def test_tensorrts_objects_end_before_the_context_and_in_order(way: str) -> None:
    gone: list[tuple[str, int]] = []
    runner = load(gone=gone)
    runner.infer(batch(2))
    if way == "with":
        with runner:
            pass
    elif way != "forgotten":
        for _ in range(way.count("c")):
            runner.close()
    del runner
    gc.collect()
    assert [name for name, _ in gone] == ["context", "engine", "runtime"]
    assert all(contexts > 0 for _, contexts in gone)


@pytest.fixture
def times_three(tmp_path: Path) -> Path:
    graph = "g (float[b,3] x) => (float[b,3] y) <float[1] w = {3}> { y = Mul(x, w) }"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {graph}')
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def thrice(runner: NvidiaRunner, size: int) -> bool:
    return bool(np.array_equal(runner.infer(batch(size))["y"], 3 * batch(size)["x"]))


def test_an_engine_without_weights_answers_with_those_of_its_file(times_three: Path) -> None:
    stripped = pretend_refit.plan(times_three, stripped=True)
    with load(plan=stripped) as runner:
        assert np.isnan(runner.infer(batch(2))["y"]).all()
    with load(plan=stripped, weights=times_three) as runner, runner.another() as second:
        assert all(thrice(each, size) for each in (runner, second) for size in (2, 2, 2, 5))


def test_an_engine_that_gets_no_weights_ends_before_the_context_and_names_them(times_three: Path) -> None:
    gone: list[tuple[str, int]] = []
    stripped = pretend_refit.plan(times_three, stripped=True)
    model = onnx.load(times_three)
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "v"
    onnx.save(model, times_three)
    with pytest.raises(SesurgeryError) as raised:
        load(gone=gone, plan=stripped, weights=times_three)
    # The error still holds the frames in which the engine was.
    assert raised.tb is not None
    assert [name for name, _ in gone] == ["engine", "runtime"]
    assert all(contexts > 0 for _, contexts in gone)
    assert str(raised.value) == (
        f"error[SE604]: TensorRT does not take the weights of {times_three}: "
        "refit failed: Only successfully refitted 0 weights out of 1; missing: 'w'"
    )


def test_an_engine_is_written_with_the_weights_that_were_put_in(times_three: Path, tmp_path: Path, monkeypatch) -> None:
    made = TensorRT(refit=True, stripped=True)
    monkeypatch.setattr(TensorRT, "library", lambda self: tensorrt())
    monkeypatch.setattr(TensorRT, "probe", lambda self: Capability("11.4", None, None))
    stripped, full = tmp_path / "stripped.engine", tmp_path / "full.engine"
    stripped.write_bytes(pretend_refit.plan(times_three, stripped=True))
    made.put_weights(stripped, times_three, full)
    times_three.unlink()
    with replace(made, stripped=False).load(full) as runner:
        assert isinstance(runner, NvidiaRunner)
        assert thrice(runner, 4)
        assert runner.engine.refittable


def test_a_closed_runner_says_so() -> None:
    runner = load()
    runner.close()
    for use in (lambda: runner.infer(batch(1)), lambda: runner.time(batch(1), 1), runner.another):
        with pytest.raises(SesurgeryError, match=r"SE603.*closed"):
            use()


def test_a_program_that_ends_with_a_runner_open_ends_it_in_order() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pretend_gpu import *\n"
        "import atexit\n"
        "gone = []\n"
        "runner = load(gone=gone)\n"
        "assert right(runner, 2) and right(runner, 2)\n"
    )
    report = "import atexit\natexit.register(lambda: print(gone, alive(), DRIVER.fake_mistakes()))\n"
    done = subprocess.run(
        [sys.executable, "-c", report + program, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = [name for name in ("context", "engine", "runtime") if f"'{name}'" in done.stdout]
    assert names == ["context", "engine", "runtime"], done.stdout + done.stderr
    assert done.stdout.endswith("{} b''\n"), done.stdout
