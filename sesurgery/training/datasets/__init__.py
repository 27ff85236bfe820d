"""Data sets by name."""

from sesurgery.catalog import Catalog
from sesurgery.training.datasets.base import Dataset

DATASETS = Catalog("sesurgery.training.datasets", Dataset, "dataset")  # type: ignore[type-abstract]
