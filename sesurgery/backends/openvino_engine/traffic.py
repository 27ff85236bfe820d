"""Bytes that the layers of a compiled network read and write, by OpenVINO's runtime graph."""

from __future__ import annotations

import math
from typing import Any


def moved(compiled: Any, batch: int) -> dict[str, int]:
    """Of each layer by its name: its inputs, with weights that are layers of their own, and its outputs.

    Open dimensions count as `batch`.
    """
    return {
        layer.get_friendly_name(): sum(
            _bytes(port, batch) for port in (*(port.get_source_output() for port in layer.inputs()), *layer.outputs())
        )
        for layer in compiled.get_runtime_model().get_ops()
    }


def _bytes(port: Any, batch: int) -> int:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return 0
    sizes = [batch if dimension.is_dynamic else dimension.get_length() for dimension in shape]
    return math.prod(sizes) * int(port.get_element_type().size)
