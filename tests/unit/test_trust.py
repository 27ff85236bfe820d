"""Seals and the key they are made with: whose an artefact is."""

from __future__ import annotations

import ast
import json
import re
import stat
from pathlib import Path

import pytest

import sesurgery
from sesurgery import pipeline, trust
from sesurgery.spec.code import code_of, location
from sesurgery.workspace import (
    OnnxDetails,
    OnnxManifest,
    Provenance,
    describe,
    manifest_path,
    read_manifest,
    write_manifest,
)

SOURCES = Path(sesurgery.__file__).parent


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """A user who has never run the program."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    trust.forget_key()
    yield tmp_path / "state" / "sesurgery" / "key"
    trust.forget_key()


@pytest.fixture
def artifact(tmp_path) -> Path:
    path = tmp_path / "x.onnx"
    path.write_text("content")
    (tmp_path / "x.onnx.data").write_text("weights")
    beside = (tmp_path / "x.onnx.data",)
    details = OnnxDetails(difference=1e-05, max_abs_by_batch={"ü": 1.0}, notes=("é",), method=None)
    describe(path, Provenance(OnnxManifest, "x", "sesurgery export runs/x", beside=beside, details=details))
    return path


def test_what_was_described_is_known_as_made_here(artifact):
    assert read_manifest(artifact).made_here


def test_a_manifest_is_sealed_as_it_is_written(artifact):
    made = describe(
        artifact, Provenance(OnnxManifest, "x", "sesurgery export runs/x", details=OnnxDetails(passes=("a", "b")))
    )
    assert made == read_manifest(artifact)
    again = write_manifest(artifact, made.model_copy(update={"details": made.details.model_copy(update={"edits": 1})}))
    assert again.made_here
    assert read_manifest(artifact).details == OnnxDetails(passes=("a", "b"), edits=1)


@pytest.mark.parametrize(
    "key", ["name", "file", "sha256", "command", "created", "details", "beside", "parents", "seal"]
)
def test_whatever_a_manifest_says_is_under_its_seal(key, artifact):
    data = json.loads(manifest_path(artifact).read_text())
    data[key] = {"str": "0" * 64, "dict": {}, "list": []}[type(data[key]).__name__]
    if data[key] == json.loads(manifest_path(artifact).read_text())[key]:
        data[key] = [{"path": "y", "sha256": "0" * 64}]
    manifest_path(artifact).write_text(json.dumps(data))
    assert not read_manifest(artifact).made_here


def test_a_manifest_without_a_seal_is_nobodys(artifact):
    data = json.loads(manifest_path(artifact).read_text())
    del data["seal"]
    manifest_path(artifact).write_text(json.dumps(data))
    assert not read_manifest(artifact).made_here


def test_the_order_of_keys_and_a_key_of_a_later_version_do_not_break_a_seal(artifact):
    data = json.loads(manifest_path(artifact).read_text())
    manifest_path(artifact).write_text(json.dumps(data, sort_keys=True))
    assert read_manifest(artifact).made_here


def test_the_key_is_made_once_for_the_user_alone(state):
    sealed = trust.seal("text")
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert len(state.read_bytes()) == 32
    trust.forget_key()
    assert trust.seal("text") == sealed
    assert [path.name for path in state.parent.iterdir()] == ["key"]


def test_another_users_seal_is_none_of_ours(artifact, state):
    assert not read_manifest(artifact).made_here


def test_a_key_that_was_cut_short_is_made_anew(state):
    state.parent.mkdir(parents=True)
    state.write_bytes(b"")
    assert trust.holds("text", trust.seal("text"))
    assert len(state.read_bytes()) == 32


def test_where_no_key_can_be_kept_one_process_still_knows_its_own(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    trust.forget_key()
    sealed = trust.seal("text")
    assert trust.holds("text", sealed)
    trust.forget_key()
    assert not trust.holds("text", sealed)
    trust.forget_key()


def test_agreement_ends_with_its_block(tmp_path):
    assert not trust.is_agreed(tmp_path)
    with trust.agreed():
        assert trust.is_agreed(tmp_path)
    assert not trust.is_agreed(tmp_path)


SPEC = {
    "version": 1,
    "model": {"source": "timm", "name": "resnet18"},
    "input": {"shape": [3, 32, 32]},
    "surgery": [{"insert": "se", "at": "residual"}],
}


def test_a_spec_tells_all_code_that_it_names():
    assert code_of(pipeline.load_spec(SPEC)) == ()
    block = {"block": "python", "factory": "blocks.mine:make"}
    model = {"source": "python", "name": "nets.mine:make"}
    rules = [{"insert": block, "at": "residual"}, {"replace": "se", "insert": {**block, "factory": "b:c"}}]
    spec = pipeline.load_spec({**SPEC, "model": model, "surgery": [*rules, rules[0]]})
    assert code_of(spec) == ("nets.mine:make", "blocks.mine:make", "b:c")


def test_options_of_every_plugin_can_be_asked_for_code():
    catalogs = pipeline.catalogs()
    for catalog in (catalogs.blocks, catalogs.placements, catalogs.datasets):
        for name in catalog.names():
            for example in catalog.examples(name):
                assert bool(code_of(example)) == (catalog in (catalogs.blocks, catalogs.datasets) and name == "python")


def test_only_what_a_spec_tells_is_imported_by_name():
    """Whoever imports by a name that comes from a file has it from an option of the type that `code_of` finds."""
    callers = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_object"
    }
    assert callers == {"networks/sources.py", "blocks/python.py", "training/data/python.py"}


def test_nothing_is_unpickled_and_nothing_evaluated():
    """`pickle`, `eval` and `exec` as calls; torch.load and numpy.load with anything but data."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in ("exec", "compile") and path.name == "changed.py":
                # The code that torch.fx writes of a traced graph, run as torch.fx itself runs it.
                continue
            assert called not in ("eval", "exec", "compile", "pickle.load", "pickle.loads", "joblib.load"), path
            if called == "torch.load":
                assert given.get("weights_only") == "True", path
            if called == "np.load":
                assert given.get("allow_pickle") == "False", path


def test_one_file_listens_and_on_the_loopback_address_alone():
    """No other imports a module that serves, and one other opens a socket, to ask whether a named cluster is there."""
    (server,) = [path for path in SOURCES.rglob("*.py") if "HTTPServer(" in path.read_text()]
    assert re.findall(r"HTTPServer\((\w+),? ?", server.read_text().replace("((", "(")) == ["LOOPBACK"]
    assert 'LOOPBACK = "127.0.0.1"' in server.read_text()
    # Ray itself tries for over a minute where nobody listens.
    asking = SOURCES / "pipeline" / "study" / "on_ray.py"
    assert re.findall(r"socket\.(\w+)", asking.read_text()) == ["create_connection"]
    serving = {"socket", "http.server", "socketserver", "asyncio", "wsgiref", "xmlrpc", "uvicorn", "flask", "fastapi"}
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            modules = {*named, node.module} if isinstance(node, ast.ImportFrom) else set(named)
            allowed = {"socket"} if path == asking else set()
            assert path == server or not modules & serving - allowed, path


def test_where_code_lies_is_found_without_importing_it(tmp_path):
    (tmp_path / "one.py").write_text("raise SystemExit")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "space").mkdir()
    assert location("one:make", (tmp_path,)) == (tmp_path / "one.py").resolve()
    assert location("package.inner:make", (tmp_path,)) == (tmp_path / "package" / "__init__.py").resolve()
    assert location("space.inner:make", (tmp_path,)) == (tmp_path / "space").resolve()
    assert location("installed.somewhere:make", (tmp_path,)) is None
