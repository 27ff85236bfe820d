"""Parses the JSON of EngineInspector for a deserialised engine, into the same form as `compiled.parse` for a build.

8.x and 10.x write a tensor's type and layout as one text, `Format/Datatype`, 11.x as two; they call the engine's inputs
and outputs `Bindings`, 11.x `I/O Tensors`; 10.x lists weights of fused parts among the inputs. An engine that was not
built with detailed verbosity has names for layers and nothing else, and one with open shapes may have layers without
types.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sesurgery.backends.kernels.compiled import Compiled, Kernel, Tensor
from sesurgery.backends.nvidia.compiled import without_constants
from sesurgery.diagnostics import fail

TYPES = {
    "bf16": "BFloat16",
    "bfloat16": "BFloat16",
    "fp16": "Half",
    "half": "Half",
    "fp32": "Float",
    "float": "Float",
    "int8": "Int8",
    "uint8": "UInt8",
    "int32": "Int32",
    "int64": "Int64",
    "bool": "Bool",
}
"""Words for a type in either version, as a build's own list has them."""
OPEN = "N/A due to dynamic shapes"
"""In the place of a type and layout that the engine chooses by the shape it is run with."""


def tells_types(text: str) -> bool:
    """Whether an engine's JSON has the types of its tensors, without which there are no sizes."""
    return OPEN not in text


def parse(text: str, batch: int = 1) -> Compiled:
    """The kernels in an engine's JSON; raises SE603 if it holds no more than names."""
    found = json.loads(text)
    layers = [layer for layer in found.get("Layers", ()) if isinstance(layer, dict)]
    if not layers:
        raise fail("SE603", "the engine does not tell its layers", "build it with -O detailed=true")
    kernels = [
        Kernel(
            layer.get("Name", ""),
            layer.get("LayerType", ""),
            _tensors(layer.get("Inputs", ())),
            _tensors(layer.get("Outputs", ())),
            tuple(re.findall(r"\[ONNX Layer: (.*?)\]", str(layer.get("Metadata", "")))),
        )
        for layer in layers
    ]
    if not any("Constants" in layer for layer in layers):
        kernels = without_constants(kernels, _ends(found))
    return Compiled(tuple(kernel for kernel in kernels if kernel.inputs or kernel.outputs), batch)


def _ends(found: dict[str, Any]) -> list[str]:
    """The engine's inputs and outputs: names in 10.x, descriptions in 11.x."""
    given = found.get("Bindings") or found.get("I/O Tensors") or ()
    return [str(end["Name"]) if isinstance(end, dict) else str(end) for end in given]


def _tensors(given: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(tensor["Name"], tuple(tensor.get("Dimensions", ())), _type(tensor))
        for tensor in given
        if isinstance(tensor, dict)
    )


def _type(tensor: dict[str, Any]) -> str:
    words = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")
    known = [TYPES[word] for word in re.findall(r"[A-Za-z]+\d*", words.lower()) if word in TYPES]
    if not known:
        raise fail("SE603", f"the engine names a type that is not known: {words!r}")
    return known[-1]
