"""YAML to a typed spec."""

from sesurgery.spec.load import load, load_engine
from sesurgery.spec.model import Spec
from sesurgery.spec.plugins import Catalogs

__all__ = ["Catalogs", "Spec", "load", "load_engine"]
