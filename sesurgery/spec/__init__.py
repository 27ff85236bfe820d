"""YAML to a typed spec."""

from sesurgery.spec.load import load
from sesurgery.spec.model import Spec
from sesurgery.spec.plugins import Catalogs

__all__ = ["Catalogs", "Spec", "load"]
