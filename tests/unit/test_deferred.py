"""Names that are imported when they are first asked for."""

import importlib
import sys
from types import ModuleType

import pytest

from sesurgery import deferred, pipeline


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `later` that promises `verb`, a function of its submodule of the same name."""
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from sesurgery import deferred\ndeferred.names(__name__, {'verb': 'later.verb', 'gone': 'later.verb'})\n"
    )
    (folder / "verb.py").write_text("def verb():\n    return 'done'\n")
    (folder / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("later")
    for name in [name for name in sys.modules if name.partition(".")[0] == "later"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_asked_for(package):
    assert "later.verb" not in sys.modules
    assert package.verb() == "done"
    assert "later.verb" in sys.modules


def test_a_submodule_of_the_same_name_does_not_take_its_place(package):
    module = importlib.import_module("later.verb")
    assert isinstance(module, ModuleType)
    assert package.verb is module.verb
    importlib.reload(module)
    assert package.verb() == "done"


def test_from_package_import_gives_the_name_promised(package):
    from later import verb

    assert verb() == "done"


def test_other_submodules_are_found_as_ever(package):
    from later import other

    assert package.other is other


def test_a_name_that_was_not_promised_is_missing(package):
    with pytest.raises(AttributeError, match="module 'later' has no attribute 'nothing'"):
        _ = package.nothing


def test_a_name_can_be_replaced_for_a_while(package, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(package, "verb", lambda: "replaced")
        assert package.verb() == "replaced"
    assert package.verb() == "done"


def test_names_are_listed_before_they_are_imported(package):
    assert {"verb", "gone"} <= set(dir(package))
    assert "later.verb" not in sys.modules


def test_every_name_of_the_pipeline_is_where_it_is_said_to_be():
    assert sorted(deferred.places("sesurgery.pipeline")) == sorted(pipeline.__all__)
    for name, place in deferred.places("sesurgery.pipeline").items():
        assert getattr(pipeline, name) is getattr(importlib.import_module(place), name)


def test_a_module_can_be_told_twice(package):
    deferred.names("later", {"verb": "later.verb"})
    assert package.verb() == "done"


def test_the_modules_of_blocks_stand_where_they_stood():
    from sesurgery.blocks import scse, se

    assert se.SEModule.__name__ == "SEModule"
    assert scse.SCSEModule.__name__ == "SCSEModule"
