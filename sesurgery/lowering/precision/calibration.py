"""The ranges of the activations to quantize, measured on real samples by ONNX Runtime's calibrators."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

from sesurgery.diagnostics import fail
from sesurgery.muting import muted

Feeds = Mapping[str, NDArray[np.generic]]
Method = Literal["minmax", "entropy", "percentile"]
Range = tuple[float, float]

METHODS = {
    "minmax": (CalibrationMethod.MinMax, {"symmetric": True}),
    # With the library's 128 bins its search has only one candidate, the whole range. Its time grows with their square.
    "entropy": (CalibrationMethod.Entropy, {"symmetric": True, "num_bins": 512, "num_quantized_bins": 128}),
    "percentile": (CalibrationMethod.Percentile, {"symmetric": True, "num_bins": 2048, "percentile": 99.99}),
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives the samples one by one."""

    def __init__(self, samples: Iterable[Feeds]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        feeds = next(self._left, None)
        return None if feeds is None else dict(feeds)


def calibrate(
    model: onnx.ModelProto, operators: Sequence[str], samples: Iterable[Feeds], method: Method
) -> dict[str, Range]:
    """Symmetric ranges of all float values that `operators` read or write, by name. Needs memory for one sample.

    Raises SE602 if ONNX Runtime cannot run the model or a sample does not fit it.
    """
    kind, options = METHODS[method]
    # The library advises its own preprocessing, through the root logger.
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), muted():
        source = Path(folder) / "model.onnx"
        onnx.save(model, source)
        try:
            calibrator = create_calibrator(
                source,
                list(operators),
                augmented_model_path=str(Path(folder) / "watched.onnx"),
                calibrate_method=kind,
                extra_options=options,
            )
            # They keep what a reader's samples gave until it ends: two numbers a value for minmax, else all values.
            for reader in [_Reader(samples)] if method == "minmax" else (_Reader([feeds]) for feeds in samples):
                calibrator.collect_data(reader)
            found = calibrator.compute_data()
        except Exception as error:  # its exceptions share no base class but Exception
            raise fail("SE602", f"the ranges of activations cannot be measured: {error}") from error
    return {name: (_scalar(data.range_value[0]), _scalar(data.range_value[1])) for name, data in found.items()}


def _scalar(value: object) -> float:
    # An array of one number or of none, by calibrator.
    return float(np.ravel(np.asarray(value))[0])
