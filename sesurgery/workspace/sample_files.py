"""Samples that a user brings in a file of numpy's, one array for each input."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sesurgery.diagnostics import described, fail

Array = NDArray[np.generic]


def arrays_of(path: Path, inputs: Collection[str], option: str, beside: str | None = None) -> dict[str, Array]:
    """The array of each input by its name, floats as float32; of one input, an .npy file will do.

    `option` is how a user names such a file, and `beside` an array that it may hold as well. Raises SE402 where it is
    not there and SE606 where it holds something else.
    """
    if not path.is_file():
        raise fail("SE402", f"{path}, which is to hold samples, is not there", f"give {option}")
    try:
        # Pickled objects would be code.
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {next(iter(inputs)): loaded}
    # A file of a user's, read by numpy, zipfile, zlib and tokenize: each has errors of its own.
    except Exception as error:
        raise fail(
            "SE606", f"{path} holds no samples: {described(error)}", "write it with numpy.save or numpy.savez"
        ) from error
    if set(arrays) - {beside} != set(inputs):
        found, asked = ", ".join(sorted(arrays)), ", ".join(sorted(inputs))
        text = f"{path} holds samples of {found}; the network's inputs are {asked}"
        raise fail("SE606", text, "numpy.savez(FILE, NAME=array) with the inputs' names")
    for name, array in arrays.items():
        if not array.ndim or array.dtype.kind not in "fiub":
            text = f"{path}: {name!r} is {array.dtype} of {array.ndim} dimensions"
            raise fail("SE606", text, "an array of numbers with a sample in each row was expected")
    return {
        name: np.asarray(arrays[name], np.float32) if arrays[name].dtype.kind == "f" else arrays[name]
        for name in arrays
    }
