"""What may be written over: our own, as we left it; all else only when told to, and what is needed never."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.workspace import OnnxDetails, OnnxManifest, Provenance, describe, manifest_path
from sesurgery.workspace.targets import claim, marked


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ours(path: Path, beside: tuple[Path, ...] = ()) -> Path:
    path.write_text("made")
    describe(path, Provenance(OnnxManifest, path.stem, "sesurgery lower", beside=beside, details=OnnxDetails()))
    return path


def refused(path: Path, **given: object) -> str:
    with pytest.raises(SesurgeryError, match="SE405") as caught:
        claim(path, **given)
    return str(caught.value)


def test_a_new_path_is_free(here):
    claim(Path("x"))


def test_our_own_as_we_left_it_is_written_again(here):
    claim(ours(Path("x")))


def test_our_own_that_was_changed_since_needs_force(here):
    path = ours(Path("x"))
    path.write_text("edited")
    assert "--force" in refused(path)
    claim(path, force=True)


def test_a_file_of_somebody_else_needs_force(here):
    Path("notes.txt").write_text("notes")
    assert "notes.txt is already there, and was not written by this program" in refused(Path("notes.txt"))
    claim(Path("notes.txt"), force=True)


def test_what_is_needed_is_never_written_over(here):
    path = ours(Path("x"))
    Path("link").symlink_to("x")
    Path("folder").mkdir()
    for target in (path, Path("link"), Path("folder/../x"), path.resolve()):
        text = refused(target, needs=[Path("x")], force=True)
        assert "is an input of the file that would replace it" in text
    os.link("x", "hard")
    refused(Path("hard"), needs=[path], force=True)


def test_a_file_beside_counts_as_the_target_does(here):
    Path("x.data").write_text("weights of somebody else")
    assert "x.data is already there" in refused(Path("x"), beside=[Path("x.data")])
    refused(Path("x"), beside=[Path("x.data")], needs=[Path("x.data")], force=True)
    claim(ours(Path("x"), (Path("x.data"),)), beside=[Path("x.data")])


def test_a_manifest_that_is_none_is_not_written_over(here):
    manifest_path(Path("x")).write_text("notes")
    assert "x.manifest.json is already there" in refused(Path("x"))


def test_a_folder_and_a_device_are_no_files(here):
    Path("folder").mkdir()
    assert "folder is a folder" in refused(Path("folder"), force=True)
    assert "/dev/null is not a regular file" in refused(Path("/dev/null"), force=True)


def test_a_dangling_link_is_somebodys(here):
    Path("link").symlink_to("nowhere")
    refused(Path("link"))


def test_a_mark_tells_our_text_files(here):
    Path("a.svg").write_text('<svg class="sesurgery">')
    Path("b.svg").write_text("<svg>")
    claim(Path("a.svg"), ours=marked('class="sesurgery"'))
    assert "b.svg is already there" in refused(Path("b.svg"), ours=marked('class="sesurgery"'))
