"""Every name of TensorRT's API that is used here is in NVIDIA's own bindings, and is called as they want.

The bindings of 10.12, the oldest version that is supported, and 11 are wheels of a megabyte that need no GPU: they load
against libraries that hold nothing but the few symbols they ask for. TensorRT-RTX's are installed for the tests anyway.
"""

import ast
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sesurgery.backends import nvidia as _nvidia
from sesurgery.backends.nvidia.settings import Settings
from sesurgery.backends.tensorrt import HARDWARE

HERE = Path(__file__).parent
SOURCES = sorted(Path(_nvidia.__file__).parent.glob("*.py"))
OBJECTS = {
    "build.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "layer": "ILayer",
        "output": "ITensor",
    },
    "loaded.py": {"engine": "ICudaEngine", "_runtime": "Runtime", "inspector": "EngineInspector"},
    "messages.py": {"error": "ParserError"},
    "ranges.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "made": "IOptimizationProfile",
        "tensor": "ITensor",
    },
    "refit.py": {
        "engine": "ICudaEngine",
        "refitter": "Refitter",
        "parser": "OnnxParserRefitter",
        "error": "ParserError",
        "config": "ISerializationConfig",
    },
    "runner.py": {"_context": "IExecutionContext", "engine": "ICudaEngine"},
    "settings.py": {"builder": "Builder", "config": "IBuilderConfig"},
    "timing_cache.py": {"config": "IBuilderConfig", "cache": "ITimingCache"},
}
"""By file, the names behind which are TensorRT's objects."""
OURS = {"cancel", "close"}
"""Methods of our own in classes that extend TensorRT's."""
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "getBuilderPluginRegistry",
    "initLibNvInferPlugins",
)
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
FOR_RTX = {"num_compute_capabilities", "set_compute_capability", "ComputeCapability"}
SINCE_10_14 = {"INCLUDE_REFIT"}
SINCE_10_13 = {"IStreamWriter", "build_serialized_network_to_stream"}


@dataclass(frozen=True)
class Bindings:
    """A wheel with TensorRT's API; `lacks` are names that the code asks for before it uses them."""

    wheel: str
    version: str
    libraries: str
    lacks: frozenset[str]


WHEELS = [
    Bindings("tensorrt-cu12-bindings", "10.12.0.36", "10", frozenset(SINCE_10_13 | SINCE_10_14 | FOR_RTX)),
    Bindings("tensorrt-cu12-bindings", "10.13.3.9", "10", frozenset(SINCE_10_14 | FOR_RTX)),
    Bindings("tensorrt-cu13-bindings", "11.4.0.106", "11", frozenset(FOR_RTX)),
]


def uses() -> list[dict]:
    """Where the code looks into TensorRT: a path of names, and how many arguments are given where it is called."""
    found = [use for path in SOURCES for use in _uses(path)]
    flags = Settings(tf32=True, refit=True, stripped=True, version_compatible=True).flags
    named = {"BuilderFlag": {*flags, "REFIT_IDENTICAL"}, "HardwareCompatibilityLevel": set(HARDWARE.values())}
    found += [{"path": [kind, name], "given": None} for kind, names in named.items() for name in sorted(names)]
    return found


def _uses(path: Path) -> Iterator[dict]:
    tree = ast.parse(path.read_text())
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _overridden(node)
        if not isinstance(node, ast.Attribute):
            continue
        root, names = _chain(node)
        call = calls.get(id(node))
        given = None if call is None else len(call.args) + len(call.keywords)
        if call is not None and any(isinstance(argument, ast.Starred) for argument in call.args):
            given = None
        if root in ("trt", "_trt") and id(node) not in inner:
            yield {"path": names, "given": given}
        elif len(names) == 1 and root in OBJECTS.get(path.name, {}):
            yield {"path": [OBJECTS[path.name][root], *names], "given": given}


def _overridden(node: ast.ClassDef) -> Iterator[dict]:
    """Methods that TensorRT calls: it must know them, with as many arguments."""
    for base in node.bases:
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name) and base.value.id == "trt":
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and part.name not in OURS:
                    yield {"path": [base.attr, part.name], "given": None}


def _chain(node: ast.Attribute) -> tuple[str, list[str]]:
    """`self.trt.BuilderFlag.TF32` -> ("trt", ["BuilderFlag", "TF32"])."""
    names: list[str] = []
    here: ast.expr = node
    while isinstance(here, ast.Attribute):
        names.insert(0, here.attr)
        here = here.value
    if not isinstance(here, ast.Name):
        return "", names
    if here.id == "self" and len(names) > 1:
        return names[0], names[1:]
    if here.id == "loaded" and len(names) > 1:
        return names[0], names[1:]
    return here.id, names


def stand_ins() -> list[dict]:
    """The methods of the classes that stand for TensorRT's: the docstring is the name that it has there."""
    bodies = [ast.parse((HERE / name).read_text()).body for name in ("pretend_gpu.py", "pretend_refit.py")]
    kinds = {kind for kinds in OBJECTS.values() for kind in kinds.values()}
    found = []
    for node in itertools.chain(*bodies):
        if isinstance(node, ast.ClassDef) and ast.get_docstring(node) in kinds:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    path = [ast.get_docstring(node), part.name]
                    given = None if part.decorator_list else len(part.args.args) - 1
                    found.append({"path": path, "given": given})
    return found


def checked(module: str, environment: dict[str, str], given: list[dict]) -> dict:
    done = subprocess.run(
        [sys.executable, str(HERE / "nvidia_api.py"), module],
        input=json.dumps(given),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, one a major version, of libraries that hold TensorRT's symbols and nothing behind them."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler to make TensorRT's libraries with")
    root = tmp_path_factory.mktemp("libraries")
    (root / "symbols.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for major in {wheel.libraries for wheel in WHEELS}:
        (root / major).mkdir()
        for name in LIBRARIES:
            target = root / major / f"{name}.so.{major}"
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{target.name}", "-o", str(target)]
            subprocess.run([*command, str(root / "symbols.c")], check=True, timeout=600)
    return root


@pytest.fixture(scope="session", params=WHEELS, ids=lambda wheel: wheel.version)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bindings, Path]:
    """A version of the bindings, unpacked; skips where it cannot be had."""
    wheel: Bindings = request.param
    cache = getattr(request.config, "cache", None)
    store = cache.mkdir("tensorrt-bindings") if cache is not None else tmp_path_factory.mktemp("bindings")
    target = store / f"{wheel.version}-{sys.implementation.cache_tag}"
    if not target.is_dir():
        with_name = tmp_path_factory.mktemp("wheel")
        words = ["download", "-q", "--no-deps", "--only-binary=:all:", "--retries", "0", "--timeout", "15"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pip", *words, "-d", str(with_name), f"{wheel.wheel}=={wheel.version}"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            reason = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            reason = ["no answer in a minute"]
        files = list(with_name.glob("*.whl"))
        if not files:
            pytest.skip(f"{wheel.wheel} {wheel.version} cannot be had: {' '.join(reason)}")
        with zipfile.ZipFile(files[0]) as archive:
            archive.extractall(with_name / "unpacked")
        beside = store / with_name.name
        shutil.copytree(with_name / "unpacked", beside)
        # At once, for a run beside this one.
        beside.rename(target)
    return wheel, target


def test_every_name_used_is_in_tensorrts_bindings_and_called_as_they_want(
    bindings: tuple[Bindings, Path], libraries: Path
) -> None:
    wheel, folder = bindings
    environment = {"LD_LIBRARY_PATH": str(libraries / wheel.libraries), "PYTHONPATH": str(folder)}
    given = [use for use in uses() if not wheel.lacks.intersection(use["path"])]
    found = checked("tensorrt_bindings", environment, given)
    assert found == {"version": wheel.version, "wrong": []}
    # What is said to be lacking is: else the exception would hide a mistake.
    lacking = [use for use in uses() if wheel.lacks.intersection(use["path"])]
    assert len(checked("tensorrt_bindings", environment, lacking)["wrong"]) >= len(wheel.lacks)


def test_every_name_used_is_in_tensorrt_rtx_and_called_as_it_wants() -> None:
    pytest.importorskip("tensorrt_rtx")
    # Levels of hardware compatibility too: it has the names, and says so when asked for one.
    assert checked("tensorrt_rtx", {}, uses())["wrong"] == []


def test_what_stands_for_tensorrt_in_tests_has_nothing_that_it_lacks() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert len(stand_ins()) > 10
    assert checked("tensorrt_rtx", {}, stand_ins())["wrong"] == []


def test_the_check_reaches_every_kind_of_object_and_sees_what_is_wrong() -> None:
    given = uses()
    assert {use["path"][0] for use in given} >= {kind for kinds in OBJECTS.values() for kind in kinds.values()}
    assert len(given) > 80
    if importlib.util.find_spec("tensorrt_rtx"):
        bad = [
            {"path": ["BuilderFlag", "FP16"], "given": None},
            {"path": ["IExecutionContext", "execute_async_v3"], "given": 2},
            {"path": ["IExecutionContext", "set_binding_shape"], "given": 2},
            {"path": ["IOptimizationProfile", "set_shape"], "given": 3},
        ]
        assert len(checked("tensorrt_rtx", {}, bad)["wrong"]) == len(bad)
