import sys

import pytest

from sesurgery.blocks import BLOCKS
from sesurgery.blocks.base import Block
from sesurgery.catalog import Catalog
from sesurgery.diagnostics import SesurgeryError


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
