"""What the compiler made of a network: its kernels, and the activation bytes that they read and write.

A builder whose `profiling_verbosity` is DETAILED logs, at VERBOSE, one message that begins with `Layers:` and has a
line for every layer of the compiled network:

    Name: NAME, LayerType: KIND, Inputs: [ {TENSOR}, ... ], Constants: [...], Outputs: [...], TacticName: ..., ...
    TENSOR = Name: NAME, Dimensions: [1,64,56,56], Strides: [...], StrideOrder: [...], Datatype: Float, Format: ...

That is TensorRT-RTX and TensorRT 11. TensorRT 10 writes `Format/Datatype: Half`, and a kernel's weights stand among its
inputs.

What a kernel moves is what it reads of its inputs and writes of its outputs, each counted once; weights (`Constants`)
are not counted. The sum over all kernels is the network's *traffic*. It is known without running anything and is the
same from build to build, and where a network is bound by memory, as its elementwise parts are, time follows it. It
leaves out caches: bytes that a GPU's second-level cache holds from one kernel to the next cost less than it says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.nvidia.backend import NvidiaBackend
from sesurgery.backends.nvidia.build import EngineBuilder
from sesurgery.backends.nvidia.messages import LAYERS
from sesurgery.diagnostics import fail

SIZES = {"Double": 8, "Int64": 8, "Float": 4, "Int32": 4, "Half": 2, "BFloat16": 2, "Int8": 1, "UInt8": 1, "Bool": 1}
_TENSOR = re.compile(r"\{ Name: (.*?), (?:Location: \w+, )?Dimensions: \[([-\d,\s]*)\], .*?Datatype: ([A-Za-z0-9]+)")
# A list of tensors ends with its last brace: names and dimensions may hold brackets too.
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: \[(?P<inputs>|.*? \})\], "
    r"(?:Constants: \[(?:|.*? \})\], )?Outputs: \[(?P<outputs>|.*? \})\].*?(?:Metadata: (?P<metadata>.*))?$"
)


@dataclass(frozen=True)
class Tensor:
    """An activation that a kernel reads or writes; a dimension that the profile leaves open is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def bytes(self, batch: int) -> int:
        """Its size where open dimensions are `batch`."""
        return SIZES[self.dtype] * math.prod(batch if dim < 0 else dim for dim in self.shape)


@dataclass(frozen=True)
class Kernel:
    """One launch: what it is made of, what it moves, and the ONNX nodes that it carries out."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def fused(self) -> str:
        """What the compiler named the fusion after: `CorrMulAddRelu`; its own name for a kernel it did not name."""
        found = re.match(r"__myl_([A-Za-z]+)", self.name)
        return found[1] if found else self.kind


@dataclass(frozen=True)
class Compiled:
    """A compiled network; open dimensions count as `batch`."""

    kernels: tuple[Kernel, ...]
    batch: int = 1

    @property
    def traffic(self) -> int:
        """Activation bytes read and written by all kernels."""
        return sum(self.moved(kernel) for kernel in self.kernels)

    @property
    def fusions(self) -> dict[str, int]:
        """How many kernels there are of each fusion."""
        return dict(Counter(kernel.fused for kernel in self.kernels).most_common())

    def moved(self, kernel: Kernel) -> int:
        """Bytes that one kernel reads and writes."""
        return sum(tensor.bytes(self.batch) for tensor in (*kernel.inputs, *kernel.outputs))


def compile_(backend: NvidiaBackend, onnx: Path, options: BuildOptions) -> Compiled:
    """Compile an ONNX file as `backend.build` does, keep no engine, and say what it became at the profile's optimum.

    Raises SE603 if the backend cannot build here, and SE604 if the build fails or lists no layers.
    """
    ability = backend.probe()
    if ability.builds is not None:
        raise fail("SE603", f"{backend.title} cannot build here: {ability.builds}", ability.remedy)
    builder = EngineBuilder(backend.library(), backend.title, replace(backend.settings(), detailed=True))
    source = _source.read(onnx)
    builder.build(source, options, None)
    ends = [value.name for value in source.model.graph.input]
    kernels = tuple(kernel for text in builder.log.layers for kernel in parse(text, ends))
    if not kernels:
        raise fail("SE604", f"{backend.title} listed no layers of {onnx}", "its log has another form in this version")
    return Compiled(kernels, options.batch.optimum)


def parse(text: str, ends: Collection[str] = ()) -> tuple[Kernel, ...]:
    """The kernels in a log message that begins with `Layers:`; layers that move nothing (shape arithmetic) are none.

    `ends` are the network's inputs, which tell the activations from the weights where they are listed together.
    """
    found = (_LAYER.match(line) for line in text.removeprefix(LAYERS).splitlines())
    kernels = [
        Kernel(
            match["name"],
            match["kind"],
            _tensors(match["inputs"]),
            _tensors(match["outputs"]),
            tuple(re.findall(r"\[ONNX Layer: (.*?)\]", match["metadata"] or "")),
        )
        for match in found
        if match
    ]
    if ", Constants: [" not in text:
        kernels = without_constants(kernels, ends)
    return tuple(kernel for kernel in kernels if kernel.inputs or kernel.outputs)


def without_constants(kernels: Collection[Kernel], ends: Collection[str]) -> list[Kernel]:
    """The kernels without the inputs that no kernel writes and nobody gives: those are weights.

    As they are where `ends` is empty, for then a network's input looks the same.
    """
    if not ends:
        return list(kernels)
    # Names within a fused part have `_` for the dots of others.
    known = {_plain(name) for name in ends} | {_plain(out.name) for kernel in kernels for out in kernel.outputs}
    return [
        replace(kernel, inputs=tuple(tensor for tensor in kernel.inputs if _plain(tensor.name) in known))
        for kernel in kernels
    ]


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, tuple(int(dim) for dim in dims.split(",") if dim.strip()), dtype)
        for name, dims, dtype in _TENSOR.findall(text)
    )
