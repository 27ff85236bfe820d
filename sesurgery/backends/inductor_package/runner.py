"""A loaded package: numpy in, numpy out, the time of the network alone."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner, TensorInfo
from sesurgery.backends.inductor_package.quiet import quiet
from sesurgery.backends.inputs import feeds as _feeds
from sesurgery.diagnostics import fail, first_line


class Package(Runner):
    """Runs on the device it was built for; on the CPU with `threads` of torch's threads, for the time of a call."""

    def __init__(self, engine: Path, threads: int | None) -> None:
        from torch._inductor import aoti_load_package

        cannot = f"inductor cannot load {engine}: "
        try:
            with quiet():
                self._model: Any = aoti_load_package(str(engine))
            given = self._model.get_metadata()
            known, (name, answer) = json.loads(given["sesurgery"]), json.loads(given["names"])
        except Exception as error:  # its loader raises RuntimeError, KeyError, zip errors and more
            raise fail("SE603", cannot + first_line(error), "build the engine again here") from error
        self._device = torch.device(known["device"])
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise fail("SE603", f"{cannot}it was built for a GPU, and torch sees no CUDA device")
        self._threads = threads
        smallest, largest = known["batch"]
        shape = tuple(known["shape"])
        fixed: tuple[int | str, ...] = (smallest,) if smallest == largest else ("batch",)
        self.inputs = (TensorInfo(name, (*fixed, *shape), "float32"),)
        self._bounds = {name: ((smallest, *shape), (largest, *shape))}
        self.outputs = (TensorInfo(answer, (*fixed, "classes"), "float32"),)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        image = self._image(feeds)
        with self._running() as model:
            found = model(image)
        return {self.outputs[0].name: found.cpu().numpy()}

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        image = self._image(feeds)
        with self._running() as model:
            return _on_gpu(model, image, repeats) if self._device.type == "cuda" else _on_cpu(model, image, repeats)

    def close(self) -> None:
        self._model = None

    def _image(self, feeds: Mapping[str, Array]) -> torch.Tensor:
        (array,) = _feeds.check(self.inputs, feeds, self._bounds).values()
        # A copy where the array cannot be written to: torch warns of those.
        image = torch.from_numpy(array if array.flags.writeable else array.copy())
        return image.to(self._device)

    @contextlib.contextmanager
    def _running(self) -> Iterator[Any]:
        if self._model is None:
            raise fail("SE603", "the engine was closed", "use a runner inside its `with` block")
        before = torch.get_num_threads()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            # TF32 rounds the inputs of fp32 convolutions to 10 bits: it is not what was asked for.
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                yield self._model
        finally:
            torch.set_num_threads(before)


def _on_cpu(model: Any, image: torch.Tensor, repeats: int) -> NDArray[np.float64]:
    samples = np.empty(repeats, np.float64)
    for index in range(repeats):
        start = time.perf_counter_ns()
        model(image)
        samples[index] = (time.perf_counter_ns() - start) * 1e-9
    return samples


def _on_gpu(model: Any, image: torch.Tensor, repeats: int) -> NDArray[np.float64]:
    """Times between events around each run; the queue is never empty, so the host's part is not among them."""
    model(image)
    event: Any = torch.cuda.Event
    events = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
    for start, end in events:
        start.record()
        model(image)
        end.record()
    torch.cuda.synchronize()
    return np.array([start.elapsed_time(end) * 1e-3 for start, end in events])
