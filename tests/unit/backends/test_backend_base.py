"""What holds for every backend."""

import pytest

from sesurgery.backends import BACKENDS
from sesurgery.backends.base import BatchRange, BuildsFromNetwork, BuildsFromOnnx, Capability
from sesurgery.diagnostics import SesurgeryError


@pytest.mark.parametrize("name", BACKENDS.names())
def test_every_backend_says_what_it_can_do_here(name: str) -> None:
    backend = BACKENDS.load(name)()
    found = backend.probe()
    assert isinstance(found, Capability)
    assert backend.suffix.startswith(".")
    assert found.version is not None or found.builds is not None
    # Whatever it cannot do, the user is told how that could change.
    assert found.remedy is not None or (found.builds is None and found.runs is None)


@pytest.mark.parametrize("name", BACKENDS.names())
def test_every_backend_builds_from_a_file_or_from_a_network(name: str) -> None:
    backend = BACKENDS.load(name)()
    assert isinstance(backend, BuildsFromOnnx) != isinstance(backend, BuildsFromNetwork)


def test_the_backends_are_the_ones_with_a_file() -> None:
    assert {"onnxruntime", "tensorrt", "tensorrt-rtx"} <= set(BACKENDS.names())


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 4), (1, 8, 4), (-1, -1, -1)])
def test_a_batch_range_that_does_not_rise_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(SesurgeryError, match=r"SE104.*must rise from at least 1"):
        BatchRange(*sizes)
