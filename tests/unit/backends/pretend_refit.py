"""What stands for TensorRT where engines get weights: a plan is JSON, with the weights by name or without them.

It refuses what onnx-tensorrt's ModelRefitter refuses, in its words. The names are checked against NVIDIA's modules in
test_backend_nvidia_api.py.
"""

import json
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import onnx
from onnx import numpy_helper


def plan(path: Path, *, stripped: bool = False, refittable: bool = True) -> bytes:
    """The engine of an ONNX file."""
    given = weights_of(path)
    said = {"names": sorted(given), "weights": None if stripped else given, "stripped": stripped, "refit": refittable}
    return json.dumps(said).encode()


def weights_of(path: Path) -> dict[str, list]:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    # Axes, shapes and limits are part of what an engine does.
    return {name: array.astype(float).tolist() for name, array in tensors.items() if array.ndim and array.dtype != int}


class SerializationFlag(Enum):
    EXCLUDE_WEIGHTS = 0
    EXCLUDE_LEAN_RUNTIME = 1
    INCLUDE_REFIT = 2


class SerializationConfig:
    """ISerializationConfig"""

    def __init__(self, flags: set[SerializationFlag]) -> None:
        self.set = flags

    def set_flag(self, flag: SerializationFlag) -> bool:
        self.set.add(flag)
        return True

    def clear_flag(self, flag: SerializationFlag) -> bool:
        self.set.discard(flag)
        return True

    def get_flag(self, flag: SerializationFlag) -> bool:
        return flag in self.set


class Refittable:
    """ICudaEngine"""

    def _hold(self, given: bytes) -> None:
        said = json.loads(given)
        self.names, self.weights, self.stripped = said["names"], said["weights"], said["stripped"]
        self.refittable = said["refit"]

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig({SerializationFlag.EXCLUDE_WEIGHTS} if self.stripped else set())

    def serialize_with_config(self, config: SerializationConfig) -> bytes:
        without = config.get_flag(SerializationFlag.EXCLUDE_WEIGHTS)
        said = {"names": self.names, "weights": None if without else self.weights, "stripped": without}
        said["refit"] = self.refittable and config.get_flag(SerializationFlag.INCLUDE_REFIT)
        return json.dumps(said).encode()


class Refitter:
    """Refitter"""

    def __init__(self, engine: Refittable, log) -> None:
        if not engine.refittable:
            raise TypeError("factory function returned nullptr")
        self.engine, self.log, self.given = engine, log, {}

    def get_all_weights(self) -> list[str]:
        return self.engine.names

    def get_missing_weights(self) -> list[str]:
        # As TensorRT-RTX: where none of a group was given, none is missing.
        return []

    def refit_cuda_engine(self) -> bool:
        if any(value != value for value in flat(list(self.given.values()))):
            self.log.log("error", "refit.cpp: weights contain NaN")
            return False
        self.engine.weights = self.given
        return True


class OnnxParserRefitter:
    """OnnxParserRefitter"""

    def __init__(self, refitter: Refitter, log) -> None:
        self.refitter, self.errors = refitter, []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int):
        return self.errors[index]

    def refit_from_file(self, model: str) -> bool:
        try:
            found = weights_of(Path(model))
        except Exception:
            return self._fail("MODEL_DESERIALIZE_FAILED", f"Failed to parse the ONNX model: {model}")
        wanted = self.refitter.get_all_weights()
        self.refitter.given = {name: found[name] for name in wanted if name in found}
        if (count := len(self.refitter.given)) != len(wanted):
            words = f"Only successfully refitted {count} weights out of {len(wanted)}"
            return self._fail("REFIT_FAILED", words)
        return True

    def _fail(self, code: str, words: str) -> bool:
        says = {"code": SimpleNamespace(name=code), "desc": words, "node_name": "", "node_operator": ""}
        self.errors.append(SimpleNamespace(**{name: lambda value=value: value for name, value in says.items()}))
        return False


def flat(values) -> list[float]:
    return [each for value in values for each in (flat(value) if isinstance(value, list) else [value])]


API = {
    "Refitter": Refitter,
    "OnnxParserRefitter": OnnxParserRefitter,
    "SerializationFlag": SerializationFlag,
}
