"""YAML to a typed spec."""

from sesurgery.spec.given import GivenModel, GivenSurgery, NamesModel, NamesSurgery
from sesurgery.spec.load import load, load_engine, load_model, load_rule, load_shape
from sesurgery.spec.plugins import Catalogs
from sesurgery.spec.spec import Spec

__all__ = [
    "Catalogs",
    "GivenModel",
    "GivenSurgery",
    "NamesModel",
    "NamesSurgery",
    "Spec",
    "load",
    "load_engine",
    "load_model",
    "load_rule",
    "load_shape",
]
