import inspect
import sys

import pytest

from sesurgery.backends import BACKENDS
from sesurgery.blocks import BLOCKS
from sesurgery.blocks.base import Block
from sesurgery.catalog import Catalog
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import PASSES
from sesurgery.networks.keymaps import KEYMAPS
from sesurgery.placements import PLACEMENTS
from sesurgery.training.data import DATASETS
from sesurgery.training.presets import PRESETS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    package = tmp_path / "plugged"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
        del sys.modules[name]


ONE = "from sesurgery.blocks.base import Block\nclass {name}(Block):\n    def build(self, channels): ...\n"


def test_a_file_is_a_plugin_of_that_name(folder):
    (folder / "mine.py").write_text(ONE.format(name="Mine"))
    catalog = Catalog("plugged", Block, "block")
    assert catalog.names() == ("mine",)
    assert catalog.load("mine").__name__ == "Mine"


def test_listing_imports_no_plugin(folder):
    (folder / "broken.py").write_text("raise RuntimeError('imported')")
    assert Catalog("plugged", Block, "block").names() == ("broken",)


def test_what_a_plugin_is_stands_in_its_file_which_is_not_run(folder):
    (folder / "broken.py").write_text(
        'raise RuntimeError(\'imported\')\nclass Broken(Block):\n    """What it is.\n\n    More.\n    """\n'
    )
    assert Catalog("plugged", Block, "block").summary("broken") == "What it is."


def test_of_several_classes_in_a_file_the_plugin_is_the_one_with_the_base(folder):
    (folder / "two.py").write_text(
        "class Part(Module):\n    'A part.'\nclass _Hidden(Block):\n    'None.'\nclass Whole(base.Block):\n    'It.'\n"
    )
    assert Catalog("plugged", Block, "block").summary("two") == "It."


def test_a_file_that_does_not_tell_is_imported_for_what_it_is(folder):
    (folder / "told.py").write_text(
        "from sesurgery.blocks.base import Block as Base\nclass Other:\n    'No plugin.'\n"
        "class Told(Base):\n    'By Python.'\n    def build(self, channels): ...\n"
    )
    assert Catalog("plugged", Block, "block").summary("told") == "By Python."


def test_every_plugin_of_ours_says_what_it_is_as_python_has_it():
    for catalog in (BLOCKS, BACKENDS, DATASETS, KEYMAPS, PASSES, PLACEMENTS, PRESETS):
        for name in catalog.names():
            assert catalog.summary(name) == inspect.getdoc(catalog.load(name)).splitlines()[0]


def test_private_modules_and_the_base_are_no_plugins(folder):
    for name in ("base", "_shared"):
        (folder / f"{name}.py").write_text("")
    assert Catalog("plugged", Block, "block").names() == ()


def test_a_file_with_two_plugins_is_refused(folder):
    (folder / "two.py").write_text(ONE.format(name="A") + ONE.format(name="B"))
    with pytest.raises(TypeError, match="must define one public Block, found 2"):
        Catalog("plugged", Block, "block").load("two")


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(SesurgeryError, match="unknown block 'ses'\n  hint: did you mean 'se'"):
        BLOCKS.load("ses")


def test_another_package_adds_a_plugin_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "foreign_se.py").write_text(ONE.format(name="ForeignSE"))
    info = tmp_path / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sesurgery.blocks]\nforeign = foreign_se:ForeignSE\n")
    monkeypatch.syspath_prepend(tmp_path)
    catalog = Catalog("sesurgery.blocks", Block, "block")
    assert "foreign" in catalog.names()
    assert catalog.load("foreign").__name__ == "ForeignSE"
