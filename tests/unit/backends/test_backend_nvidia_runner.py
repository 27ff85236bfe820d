"""The runner's memory, streams, events and graphs, on a CUDA driver written for tests: see pretend_gpu.py.

It proves calls, their order, sizes, bounds and clean-up, not TensorRT: tests/gpu does that where there is a GPU. The
names of TensorRT's that it uses are checked against NVIDIA's modules in test_backend_nvidia_api.py.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sesurgery.backends.nvidia.timings import Timings

HERE = Path(__file__).parent
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to make the driver with")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 in it."""
    folder = tmp_path_factory.mktemp("driver")
    name = "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", str(folder / name)]
    subprocess.run(["cc", *flags, str(HERE / "fake_driver.c"), "-ldl"], check=True, timeout=600)
    return folder


def pretend(driver: Path, *packages: Path, preload: bool = False) -> None:
    """Run pretend_gpu.py in a process that finds the driver, and these folders of packages before any other."""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver),
        "PYTHONPATH": os.pathsep.join([*map(str, packages), os.environ.get("PYTHONPATH", "")]),
    }
    if preload:
        environment["LD_PRELOAD"] = str(driver / "libcuda.so.1")
    # Without what other tests share: it imports torch, and every test here looks through all objects that there are.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "--noconftest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / "pretend_gpu.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@needs_compiler
def test_the_runner_keeps_the_drivers_rules_through_cuda_bindings(driver: Path) -> None:
    pytest.importorskip("cuda.bindings.driver")
    if importlib.util.find_spec("pycuda"):
        pytest.skip("pycuda is installed, and taken before cuda-bindings")
    pretend(driver)


@needs_compiler
def test_the_runner_keeps_the_drivers_rules_through_what_stands_for_pycuda(driver: Path) -> None:
    pretend(driver, HERE / "fake_pycuda")


@needs_compiler
@pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="pycuda is not installed")
def test_the_runner_keeps_the_drivers_rules_through_pycuda(driver: Path) -> None:
    pretend(driver, preload=True)


def timings(compute: float, enqueue: float, spread: float = 0.0, graph: bool = False) -> Timings:
    wave = 1 + spread * np.tile([-1.0, 1.0], 50)
    return Timings(np.full(100, 1e-4), compute * wave, np.full(100, 2e-4), np.full(100, enqueue), 1.0, graph)


def test_a_quiet_run_has_no_warnings_and_its_parts_in_trtexecs_words() -> None:
    text = str(timings(1e-3, 1e-4))
    assert "warning" not in text
    words = [line.split()[0] for line in text.splitlines()]
    assert words == ["ms", "Latency", "Enqueue", "H2D", "GPU", "D2H", "100"]
    assert text.splitlines()[1].split() == ["Latency", *["1.300"] * 7]
    assert len({len(line) for line in text.splitlines()[:6]}) == 1


@pytest.mark.parametrize(("enqueue", "warned"), [(0.79e-3, False), (0.81e-3, True)])
def test_a_run_that_the_host_holds_up_is_called_enqueue_bound(enqueue: float, warned: bool) -> None:
    found = timings(1e-3, enqueue).warnings
    assert [text.split(":")[0] for text in found] == (["enqueue-bound"] if warned else [])
    assert all("a CUDA graph would help" in text for text in found)
    assert all("graph" not in text for text in timings(1e-3, enqueue, graph=True).warnings)


@pytest.mark.parametrize(("spread", "warned"), [(0.024, False), (0.026, True)])
def test_a_run_that_varies_is_called_unstable(spread: float, warned: bool) -> None:
    assert [text.split(":")[0] for text in timings(1e-3, 1e-4, spread).warnings] == (["unstable"] if warned else [])
