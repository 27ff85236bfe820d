"""YAML to a typed spec."""

from sesurgery.spec.given import GivenModel, NamesModel
from sesurgery.spec.load import load, load_engine, load_model, load_rule, load_shape
from sesurgery.spec.plugins import Catalogs
from sesurgery.spec.spec import Spec

__all__ = [
    "Catalogs",
    "GivenModel",
    "NamesModel",
    "Spec",
    "load",
    "load_engine",
    "load_model",
    "load_rule",
    "load_shape",
]
