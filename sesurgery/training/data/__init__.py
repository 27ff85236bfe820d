"""Data sets by name, and that of a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesurgery.catalog import Catalog
from sesurgery.training.data.base import Dataset

if TYPE_CHECKING:
    from sesurgery.spec import Spec
    from sesurgery.training.data.base import Data

DATASETS = Catalog("sesurgery.training.data", Dataset, "dataset", group="sesurgery.datasets")  # type: ignore[type-abstract]


def data_of(spec: Spec) -> Data:
    """The spec's data, shaped for its network."""
    return spec.train.data.options.load(spec.input.shape)  # type: ignore[no-any-return]
