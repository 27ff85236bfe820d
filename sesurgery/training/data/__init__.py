"""Data sets by name."""

from sesurgery.catalog import Catalog
from sesurgery.training.data.base import Dataset

DATASETS = Catalog("sesurgery.training.data", Dataset, "dataset", group="sesurgery.datasets")  # type: ignore[type-abstract]
