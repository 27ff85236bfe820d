"""The runner's bookkeeping, on a stand-in whose device memory is host memory and whose engine doubles its input.

It proves the order of calls, sizes, bounds and clean-up, not TensorRT: tests/gpu does that where there is a GPU. The
names it is called by are checked against NVIDIA's real module.
"""

import ctypes
import importlib
import inspect
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest

from sesurgery.backends._nvidia.runner import EVENTS, NvidiaRunner
from sesurgery.diagnostics import SesurgeryError


class Memory:
    """The methods of `Cuda` over ctypes buffers; a use after `free` is a KeyError."""

    stream = 7

    def __init__(self) -> None:
        self.buffers: dict[int, ctypes.Array] = {}
        self.events = 0
        self.clock = 0.0
        self.closed = False

    def allocate(self, size: int) -> int:
        buffer = ctypes.create_string_buffer(size)
        self.buffers[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free(self, address: int) -> None:
        del self.buffers[address]

    def upload(self, address: int, array: np.ndarray) -> None:
        assert len(self.buffers[address]) >= array.nbytes
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int) -> None:
        assert len(self.buffers[address]) >= array.nbytes
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def synchronize(self) -> None:
        pass

    def event(self) -> dict[str, float]:
        self.events += 1
        return {}

    def record(self, event: dict[str, float]) -> None:
        self.clock += 1
        event["at"] = self.clock

    def seconds_between(self, start: dict[str, float], end: dict[str, float]) -> float:
        return end["at"] - start["at"]

    def forget(self, event: dict[str, float]) -> None:
        self.events -= 1

    def close(self) -> None:
        self.buffers.clear()
        self.closed = True


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class Context:
    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.runs = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape else ["x"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == Memory.stream
        assert self.shape is not None
        size = int(np.prod(self.shape))
        read, write = (
            np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name])) for name in ("x", "y")
        )
        write[:] = 2 * read
        self.runs += 1
        return size < 100


class Engine:
    num_io_tensors = 2

    def __init__(self) -> None:
        self.context = Context()

    def create_execution_context(self) -> Context:
        return self.context

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == "x", "outputs have no profile"
        return [(1, 3), (2, 3), (64, 3)]


class Logger:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"


def tensorrt(engine: Engine | None) -> SimpleNamespace:
    class Runtime:
        def __init__(self, log) -> None:
            self.log = log

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if engine is None:
                self.log.log(Logger.ERROR, "the plan is for another GPU")
            return engine

    return SimpleNamespace(ILogger=Logger, Runtime=Runtime, TensorIOMode=Mode, nptype=lambda dtype: np.float32)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def runner(engine: Engine, memory: Memory) -> NvidiaRunner:
    return NvidiaRunner(tensorrt(engine), "TensorRT", b"plan", memory)


def batch(size: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(size * 3, dtype=np.float32).reshape(size, 3)}


def test_tensors_are_described_with_a_named_batch(runner: NvidiaRunner) -> None:
    assert [(info.name, info.shape, info.dtype) for info in runner.inputs] == [("x", ("batch", 3), "float32")]
    assert [(info.name, info.shape, info.dtype) for info in runner.outputs] == [("y", ("batch", 3), "float32")]


def test_every_batch_gets_its_own_answer_and_room_is_reused(runner: NvidiaRunner, memory: Memory) -> None:
    for size in (4, 1, 16, 2, 4):
        np.testing.assert_array_equal(runner.infer(batch(size))["y"], 2 * batch(size)["x"])
    assert [len(buffer) for buffer in memory.buffers.values()] == [16 * 3 * 4] * 2


def test_answers_do_not_change_when_the_next_ones_come(runner: NvidiaRunner) -> None:
    first = runner.infer(batch(2))["y"]
    runner.infer({"x": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(first, 2 * batch(2)["x"])


def test_a_batch_outside_the_profile_is_refused(runner: NvidiaRunner) -> None:
    with pytest.raises(SesurgeryError, match=r"SE606.*'x' has batch 65, the engine was built for 1 to 64"):
        runner.infer(batch(65))


@pytest.mark.parametrize("repeats", [1, EVENTS, EVENTS + 1, 3 * EVENTS - 1])
def test_each_run_is_timed_once_after_one_that_is_not(repeats, runner: NvidiaRunner, engine: Engine, memory: Memory):
    np.testing.assert_array_equal(runner.time(batch(2), repeats), np.ones(repeats))
    assert engine.context.runs == repeats + 1
    assert memory.events == 0


def test_an_engine_that_does_not_load_gives_the_logged_reason(memory: Memory) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*TensorRT cannot load the engine: the plan is for another GPU"):
        NvidiaRunner(tensorrt(None), "TensorRT", b"plan", memory)


def test_a_run_that_fails_is_an_error_and_no_answer(runner: NvidiaRunner) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*TensorRT cannot run: no reason given"):
        runner.infer(batch(64))


def test_closing_gives_all_memory_back_and_happens_once(runner: NvidiaRunner, memory: Memory) -> None:
    runner.infer(batch(2))
    runner.close()
    runner.close()
    assert memory.closed
    with pytest.raises(SesurgeryError, match=r"SE603.*closed"):
        runner.infer(batch(2))


@pytest.mark.parametrize(("stand_in", "real"), [(Engine, "ICudaEngine"), (Context, "IExecutionContext")])
def test_the_stand_ins_have_no_name_that_the_real_module_lacks(stand_in: type, real: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for name, _ in inspect.getmembers(stand_in):
        assert name.startswith("_") or hasattr(getattr(trt, real), name), name


def test_the_real_cuda_bindings_take_the_arguments_they_are_given() -> None:
    # Without a driver every call answers with an error; arguments of a wrong type would raise before that.
    runtime = pytest.importorskip("cuda.bindings.runtime")
    assert importlib.import_module("cuda.bindings.runtime") is runtime
    array = np.zeros(4, np.float32)
    stream, event, kind = runtime.cudaStream_t(0), runtime.cudaEvent_t(0), runtime.cudaMemcpyKind
    if runtime.cudaDriverGetVersion()[1] != 0:
        pytest.skip("there is a driver here: the null handles would be used")
    for function, arguments in {
        "cudaMalloc": (16,),
        "cudaFree": (0,),
        "cudaMemcpyAsync": (4096, array.ctypes.data, array.nbytes, kind.cudaMemcpyHostToDevice, 0),
        "cudaStreamCreateWithFlags": (runtime.cudaStreamNonBlocking,),
        "cudaStreamSynchronize": (int(stream),),
        "cudaStreamDestroy": (stream,),
        "cudaEventCreate": (),
        "cudaEventRecord": (event, int(stream)),
        "cudaEventElapsedTime": (event, event),
        "cudaEventDestroy": (event,),
    }.items():
        status, *_ = getattr(runtime, function)(*arguments)
        assert status == runtime.cudaError_t.cudaErrorInsufficientDriver, function
