"""One file a section, and the names that the sections had before."""

import importlib
import sys

import pytest

from sesurgery.spec import model
from sesurgery.spec.spec import Spec

ELSEWHERE = {"version": "spec", "name": "spec"}


@pytest.mark.parametrize("key", Spec.model_fields)
def test_each_section_has_a_file_of_its_name(key):
    module = importlib.import_module(f"sesurgery.spec.{ELSEWHERE.get(key, key)}")
    assert module.__doc__


@pytest.mark.parametrize("name", sorted(model.MOVED))
def test_a_former_name_is_the_same_class_with_a_warning_that_names_the_new_one(name):
    now, called = f"sesurgery.spec.{model.MOVED[name]}", model.RENAMED.get(name, name)
    with pytest.warns(FutureWarning, match=rf"sesurgery\.spec\.model\.{name} is now {now}\.{called};"):
        found = getattr(model, name)
    assert found is getattr(sys.modules[now], called)


def test_a_name_that_never_was_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Engines'"):
        _ = model.Engines
