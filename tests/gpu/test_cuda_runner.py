"""A runner's memory, streams, events and graphs on a real GPU, with a kernel compiled here: no TensorRT needed."""

import ctypes
import threading

import numpy as np
import pytest

from sesurgery.backends.nvidia import cuda, with_bindings, with_pycuda
from sesurgery.backends.nvidia.device import Device
from sesurgery.backends.nvidia.foreign import on_device
from sesurgery.diagnostics import SesurgeryError

OBSTACLE = cuda.obstacle()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))]
COUNT = 1 << 20
SOURCE = b"""
extern "C" __global__ void scale(float *to, const float *from, float factor, int count) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) to[at] = factor * from[at];
}
"""


@pytest.fixture(params=[with_bindings, with_pycuda], ids=["cuda-bindings", "pycuda"])
def device(request: pytest.FixtureRequest):
    pytest.importorskip(request.param.MODULE)
    adapters = {with_bindings: with_bindings.BindingsDevice, with_pycuda: with_pycuda.PycudaDevice}
    made = adapters[request.param]()
    yield made
    made.close()


class Kernel:
    """`scale`, compiled by NVRTC for the GPU at hand and launched by the driver; in the current context."""

    def __init__(self) -> None:
        driver = pytest.importorskip("cuda.bindings.driver")
        nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
        _, number = driver.cuCtxGetDevice()
        attribute = driver.CUdevice_attribute
        digits = [
            driver.cuDeviceGetAttribute(getattr(attribute, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"), number)[1]
            for part in ("MAJOR", "MINOR")
        ]
        _, program = nvrtc.nvrtcCreateProgram(SOURCE, b"scale.cu", 0, [], [])
        (status,) = nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture=sm_{digits[0]}{digits[1]}".encode()])
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        image = b" " * size
        nvrtc.nvrtcGetCUBIN(program, image)
        status, self._module = driver.cuModuleLoadData(np.char.array(image).ctypes.data)
        assert status == driver.CUresult.CUDA_SUCCESS
        _, self._function = driver.cuModuleGetFunction(self._module, b"scale")
        self._driver = driver

    def __call__(self, stream: int, to: int, source: int, factor: float, count: int) -> None:
        values = (to, source, factor, count)
        kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float, ctypes.c_int)
        (status,) = self._driver.cuLaunchKernel(
            self._function, (count + 255) // 256, 1, 1, 256, 1, 1, 0, stream, (values, kinds), 0
        )
        assert status == self._driver.CUresult.CUDA_SUCCESS


class Bench:
    """Two arrays on the GPU and their pinned twins."""

    def __init__(self, device: Device) -> None:
        self.device, self.stream = device, device.stream()
        self.source, self.target = device.allocate(4 * COUNT), device.allocate(4 * COUNT)
        self.given, self.answer = (device.pin(4 * COUNT).view(np.float32) for _ in range(2))
        self.given[:] = np.arange(COUNT, dtype=np.float32) % 1000

    def upload(self) -> None:
        self.device.upload(self.source, self.given.view(np.uint8), self.stream)

    def result(self) -> np.ndarray:
        self.device.download(self.answer.view(np.uint8), self.target, self.stream)
        self.device.synchronize(self.stream)
        return self.answer.copy()


def test_what_is_uploaded_computed_and_downloaded_is_right(device: Device) -> None:
    with device.active():
        bench, scale = Bench(device), Kernel()
        bench.upload()
        scale(bench.stream, bench.target, bench.source, 3.0, COUNT)
        np.testing.assert_array_equal(bench.result(), 3 * bench.given)


def test_a_captured_graph_computes_on_what_is_there_when_it_is_launched(device: Device) -> None:
    with device.active():
        bench, scale = Bench(device), Kernel()
        scale(bench.stream, bench.target, bench.source, 3.0, COUNT)
        device.synchronize(bench.stream)
        device.begin_capture(bench.stream)
        scale(bench.stream, bench.target, bench.source, 3.0, COUNT)
        graph = device.end_capture(bench.stream)
        for factor in (1, 2):
            bench.given[:] *= factor
            bench.upload()
            device.launch(graph, bench.stream)
            np.testing.assert_array_equal(bench.result(), 3 * bench.given)
        device.forget_graph(graph)


def test_a_capture_that_went_wrong_can_be_abandoned(device: Device) -> None:
    with device.active():
        bench, scale = Bench(device), Kernel()
        device.begin_capture(bench.stream)
        with pytest.raises(Exception, match=r"captur"):
            device.synchronize(bench.stream)
        device.abandon_capture(bench.stream)
        bench.upload()
        scale(bench.stream, bench.target, bench.source, 2.0, COUNT)
        np.testing.assert_array_equal(bench.result(), 2 * bench.given)


def test_events_measure_the_gpu_and_longer_work_takes_longer(device: Device) -> None:
    with device.active():
        bench, scale = Bench(device), Kernel()
        start, end = device.event(), device.event()
        seconds = []
        for runs in (1, 1, 50):
            device.record(start, bench.stream)
            for _ in range(runs):
                scale(bench.stream, bench.target, bench.source, 2.0, COUNT)
            device.record(end, bench.stream)
            device.synchronize(bench.stream)
            seconds.append(device.seconds_between(start, end))
        # 50 kernels that each move 8 MB.
        assert seconds[2] > seconds[1] > 0


def test_another_thread_can_use_the_device(device: Device) -> None:
    answers = []

    def work() -> None:
        with device.active():
            bench, scale = Bench(device), Kernel()
            bench.upload()
            scale(bench.stream, bench.target, bench.source, 4.0, COUNT)
            answers.append(np.array_equal(bench.result(), 4 * bench.given))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [True]


def test_an_array_of_torchs_is_found_where_it_lies(device: Device) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA")
    tensor = torch.arange(COUNT, dtype=torch.float32, device="cuda")
    with device.active():
        bench = Bench(device)
        for given in (tensor, torch.utils.dlpack.from_dlpack(tensor)):
            found = on_device("x", given)
            assert found is not None
            if found.stream is not None:
                device.wait_for(found.stream)
            device.copy(bench.target, found.address, found.nbytes, bench.stream)
            np.testing.assert_array_equal(bench.result(), np.arange(COUNT, dtype=np.float32))


def test_more_memory_than_there_is_is_refused_in_cudas_words(device: Device) -> None:
    with pytest.raises(SesurgeryError, match=r"SE603.*out of memory"), device.active():
        device.allocate(1 << 50)


def test_all_memory_comes_back_when_a_device_is_closed(device: Device) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    with device.active():
        device.synchronize(device.stream())
        _, before, _ = driver.cuMemGetInfo()
    other = type(device)()
    with other.active():
        for _ in range(8):
            other.allocate(64 << 20)
        _, during, _ = driver.cuMemGetInfo()
    other.close()
    with device.active():
        _, after, _ = driver.cuMemGetInfo()
    assert before - during >= 8 * (64 << 20)
    assert before - after < 64 << 20
