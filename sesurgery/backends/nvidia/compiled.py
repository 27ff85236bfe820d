"""What the compiler made of a network: its kernels, and the activation bytes that they read and write.

A builder whose `profiling_verbosity` is DETAILED logs, at VERBOSE, one message that begins with `Layers:` and has a
line for every layer of the compiled network:

    Name: NAME, LayerType: KIND, Inputs: [ {TENSOR}, ... ], Constants: [...], Outputs: [...], TacticName: ..., ...
    TENSOR = Name: NAME, Dimensions: [1,64,56,56], Strides: [...], StrideOrder: [...], Datatype: Float, Format: ...

That is TensorRT-RTX and TensorRT 11. TensorRT 10 writes `Format/Datatype: Half`, and a kernel's weights stand among its
inputs.

`sesurgery.backends.kernels.compiled` says what of it is counted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.kernels.compiled import Compiled, Kernel, Tensor
from sesurgery.backends.nvidia.build import EngineBuilder
from sesurgery.backends.nvidia.messages import LAYERS
from sesurgery.diagnostics import fail

_TENSOR = re.compile(r"\{ Name: (.*?), (?:Location: \w+, )?Dimensions: \[([-\d,\s]*)\], .*?Datatype: ([A-Za-z0-9]+)")
# A list of tensors ends with its last brace: names and dimensions may hold brackets too.
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: \[(?P<inputs>|.*? \})\], "
    r"(?:Constants: \[(?:|.*? \})\], )?Outputs: \[(?P<outputs>|.*? \})\].*?(?:Metadata: (?P<metadata>.*))?$"
)


def compile_(builder: EngineBuilder, title: str, onnx: Path, options: BuildOptions) -> Compiled:
    """Compile an ONNX file with a `detailed` builder, keep no engine, and list its kernels at the profile's optimum.

    Raises SE604 if the build fails or lists no layers.
    """
    source = _source.read(onnx)
    builder.build(source, options, None)
    ends = [value.name for value in source.model.graph.input]
    kernels = tuple(kernel for text in builder.log.layers for kernel in parse(text, ends))
    if not kernels:
        raise fail("SE604", f"{title} listed no layers of {onnx}", "its log has another form in this version")
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
