"""Paths that come from files, and names: inside their folder, or refused."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesurgery.diagnostics import SesurgeryError
from sesurgery.paths import inside, plain_name


@pytest.mark.parametrize("given", ["x", "a/b", "a/../b", "..x", "x..", "a b", "ü"])
def test_a_path_that_stays_inside_is_taken(given, tmp_path):
    assert inside(tmp_path, given, "it") == tmp_path / given


@pytest.mark.parametrize(
    "given",
    ["..", "../x", "a/../../x", "/etc/passwd", "", ".", "a/..", "C:/x", "x\0y", "link/x", "link", "self", "x" * 5000],
)
def test_one_that_leads_out_is_refused(given, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "self").symlink_to(folder / "self")
    if given == "x" * 5000:
        # It can be named, and not be made: whoever writes it is told by the system.
        assert inside(folder, given, "it").parent == folder
        return
    with pytest.raises(SesurgeryError, match=r"SE408.*it would lie outside"):
        inside(folder, given, "it")


def test_the_current_folder_can_be_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert inside(Path(), "runs/x", "it") == Path("runs/x")
    with pytest.raises(SesurgeryError, match=r"outside \./: '\.\./x'"):
        inside(Path(), "../x", "it")


STEPS = st.sampled_from(["..", ".", "", "a", "b", "link", "out", "x" * 300, "ü", "..x", " "])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(STEPS, max_size=6).map("/".join))
def test_a_path_is_taken_where_it_leads_inside_and_nowhere_else(given):
    """By the system's own answer to where a path leads, with links in the folder, inwards and out of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "folder"
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "link").symlink_to(folder / "a")
        (folder / "out").symlink_to(folder.parent)
        real = os.path.realpath(folder / given)
        if given.startswith("/") or not real.startswith(f"{folder}/"):
            with pytest.raises(SesurgeryError, match="SE408"):
                inside(folder, given, "it")
        else:
            assert os.path.realpath(inside(folder, given, "it")) == real


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=8) | st.text(st.sampled_from("ab./\\: \x00\x1b~"), max_size=8))
def test_a_plain_name_is_one_file_of_its_folder_and_can_be_printed(given):
    with contextlib.suppress(SesurgeryError):
        name = plain_name(given, "it")
        assert name == given
        assert "/" not in name
        assert os.path.normpath(os.path.join("folder", name)) == f"folder/{name}"
        assert name.isprintable()
        assert not name.startswith(".")


@pytest.mark.parametrize("given", ["x", "x.y-z_1", "a b", "ü"])
def test_a_plain_name_is_taken(given):
    assert plain_name(given, "it") == given


@pytest.mark.parametrize(
    "given", ["", ".", "..", "../x", "a/b", "/x", "a\\b", "C:x", ".git", "x\ny", "x\0", "x/", "\x1b[2J"]
)
def test_what_is_no_plain_name_is_refused(given):
    with pytest.raises(SesurgeryError, match="SE408"):
        plain_name(given, "the name")
