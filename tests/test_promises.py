"""What the project promises to everyone who opens it, checked from outside."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sesurgery import pipeline
from sesurgery.cli import program

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
HEAVY = (
    *(
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "ultralytics",
        "lightning",
        "torchmetrics",
        "tensorboard",
        "sklearn",
        "matplotlib",
    ),
    *("onnx", "onnxruntime", "onnxscript", "onnx_graphsurgeon", "openvino", "tensorrt", "tensorrt_rtx"),
)


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(code: str) -> set[str]:
    """The heavy packages that a piece of code has imported by its end."""
    return set(python(f"{code}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))").split())


def test_the_check_for_heavy_imports_would_notice_one():
    assert imported("import onnx") == {"onnx"}


@pytest.mark.parametrize("verb", [[], ["run"], ["plan"], ["build-engine"], ["doctor"]], ids=lambda verb: " ".join(verb))
def test_help_imports_nothing_heavy(verb):
    out = python(
        f"import sys\nfrom sesurgery.cli import main\nsys.argv = ['sesurgery', *{verb}, '--help']\n"
        f"try:\n    main()\nexcept SystemExit:\n    print('heavy:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    assert out.startswith("Usage: sesurgery ")
    assert out.splitlines()[-1] == "heavy:"


def processor_time(*command: str) -> float:
    """Seconds of processor time of a process; the least of several, which other work on the machine hardly touches."""

    def once() -> float:
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    return min(once() for _ in range(5))


def test_help_costs_little_more_than_python_itself():
    assert processor_time("-m", "sesurgery", "--help") - processor_time("-c", "pass") < 0.15


RUN = """
import sys
from sesurgery.cli import program
for arguments in sys.argv[1:]:
    program(arguments.split(), standalone_mode=False)
print("heavy:", *(name for name in {heavy} if name in sys.modules))
"""


def heavy_of(*commands: str, cwd: Path = ROOT) -> set[str]:
    """The heavy packages that commands have imported by the end, one after another in one fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(heavy=HEAVY), *commands],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_specs_are_checked_and_plugins_listed_without_any_framework():
    """The specs, the schema of every plugin's options, and every catalog."""
    lists = [
        f"list {what}"
        for what in ("blocks", "placements", "passes", "backends", "datasets", "presets", "keymaps", "zoo")
    ]
    assert heavy_of(f"check {' '.join(str(path) for path in SPECS)}", "schema", *lists) == set()


def test_doctor_asks_engines_alone():
    found = heavy_of("doctor --json")
    assert found <= {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"}
    assert "onnxruntime" in found


TORCH = {"torch", "torchvision"}
# Lightning brings torchmetrics, which brings matplotlib, and transformers where it is installed.
TRAINER = {"lightning", "torchmetrics", "tensorboard", "matplotlib", "transformers"}
DATA = {"sklearn"}
ONNX = {"onnx", "onnxruntime"}
# onnxscript exports, and folds the constants of a file that passes are to work on.
EXPORTER = {*ONNX, "onnxscript"}
ENGINE = "engines/tiny.onnxruntime.fp32.onnx"
ALLOWED = {
    "plan tiny.yaml": TORCH,
    "inspect tiny.yaml": TORCH,
    "init torchvision:resnet18 -o -": TORCH,
    "apply tiny.yaml": TORCH,
    "train runs/tiny": TORCH | TRAINER | DATA,
    "evaluate runs/tiny": TORCH | DATA,
    "compare runs/tiny runs/tiny": TORCH | DATA,
    "gates runs/tiny": TORCH | DATA,
    "export runs/tiny": TORCH | EXPORTER,
    "lower export/tiny.onnx -o lowered.onnx --for onnxruntime": EXPORTER,
    "build-engine export/tiny.onnx": EXPORTER,
    "build-engine runs/tiny": ONNX,
    f"verify {ENGINE}": TORCH | DATA | {"onnxruntime"},
    f"bench {ENGINE}": TORCH | DATA | EXPORTER | {"matplotlib"},
    "report runs/tiny": {"matplotlib"},
    "apply tiny.yaml --onnx export/tiny.plain.onnx -o changed.onnx": TORCH | EXPORTER | {"onnx_graphsurgeon"},
    f"predict {ENGINE} digit.png": {"onnxruntime"},
    f"package {ENGINE} --triton models": ONNX,
    "gates export/tiny.onnx --inputs samples.npz": TORCH | ONNX | {"onnx_graphsurgeon"},
    f"verify {ENGINE} --against export/tiny.onnx": {"onnxruntime"},
    "study small.yaml": TORCH | TRAINER | DATA,
    "run small.yaml": TORCH | TRAINER | DATA | EXPORTER,
}
"""By command, in the order from a spec to a served engine: each needs what those before it have made."""
HELD_ELSEWHERE = ("check", "schema", "list", "doctor", "demo")
"""By the two tests above; `demo` takes a while, and has a process of its own in tests/integration/test_demo.py."""
REFUSED = {
    f"refit {ENGINE} -o other.onnx": ONNX,
    "data fetch digits": set(),
    "gates export/tiny.onnx --inputs none.npz": TORCH | ONNX,
}
"""Commands that end with an error: `refit` needs a GPU, the digits are not fetched. What was imported by then."""
TINY = """version: 1
name: tiny
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8}}
input: {shape: [3, 8, 8]}
surgery: [{insert: {block: se, reduction: 4}, at: residual}]
train: {data: digits, epochs: 1}
engines: [{backend: onnxruntime, precision: fp32}]
parity: {batches: [1]}
latency: {repeats: 10, rounds: 10, placements: 4, half_width: null}
"""
SMALL = f"""{TINY.replace("tiny", "small").replace("data: digits", "data: {dataset: digits, held_out: 0.9}")}
study: {{seeds: [0]}}
"""


FORKS = """
import gc, os, sys
# Each copy is short: it ends before it has made much garbage.
gc.disable()
import {first}
from sesurgery.cli import program
from sesurgery.diagnostics import SesurgeryError
for line in sys.stdin:
    if (child := os.fork()) == 0:
        refused = line.startswith("!")
        try:
            program(line.removeprefix("!").split(), standalone_mode=False)
        except SesurgeryError:
            if not refused:
                raise
        else:
            assert not refused, line
        print("heavy:", *(name for name in {heavy} if name in sys.modules), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""


class Forks:
    """A process that has imported a package, and runs each command in a copy of itself."""

    def __init__(self, first: str, folder: Path) -> None:
        self.first, self.told = first, folder / f"{first}.stderr"
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS.format(first=first, heavy=HEAVY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.told.open("w"),
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def heavy_of(self, command: str) -> set[str]:
        """The heavy packages that a command has imported by its end, and the one that was there."""
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("heavy:"):
                return set(line.split()[1:])
        raise AssertionError(f"{command}: {self.told.read_text()}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def test_every_verb_is_held_to_a_list_of_what_it_may_import():
    assert {command.split()[0] for command in (*ALLOWED, *REFUSED, *HELD_ELSEWHERE)} == set(program.commands)


@pytest.mark.slow
def test_every_verb_imports_what_it_runs_and_no_more(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "small.yaml").write_text(SMALL)
    Image.new("L", (8, 8), 128).save(tmp_path / "digit.png")
    np.savez(tmp_path / "samples.npz", input=np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32))
    more = {}
    torch, click = Forks("torchvision, torch._dynamo", tmp_path), Forks("click", tmp_path)
    with closing(torch) as with_torch, closing(click) as without:
        for command, allowed in {**ALLOWED, **{f"!{command}": allowed for command, allowed in REFUSED.items()}}.items():
            # Torch and torchvision take seconds to import: a verb that may have them finds them there.
            if found := (with_torch if "torch" in allowed else without).heavy_of(command) - allowed:
                more[command] = found
    assert more == {}


def test_a_plan_imports_no_trainer_and_no_engine(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert heavy_of("plan tiny.yaml", cwd=tmp_path) == {"torch"}


def test_a_mistake_in_a_spec_is_told_before_torch_is_imported(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("depth", "depht").replace("reduction", "redaction"))
    for verb in ("plan", "apply", "train", "run"):
        code = (
            "import sys\nfrom sesurgery.cli import program\nfrom sesurgery.diagnostics import SesurgeryError\n"
            f"try:\n    program(['{verb}', 'tiny.yaml'], standalone_mode=False)\n"
            f"except SesurgeryError:\n    print('told', *(name for name in {HEAVY} if name in sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.stdout.strip() == "told", done.stderr


def test_a_block_of_somebody_else_may_import_torch_and_is_listed_without():
    """The recipe of CONTRIBUTING.md has its module in the block's own file: only a spec that names it pays."""
    code = """
import sys, tempfile
from pathlib import Path
from sesurgery import blocks
folder = Path(tempfile.mkdtemp())
(folder / "mine.py").write_text(
    "import torch\\nfrom sesurgery.blocks.base import Block\\n"
    "class MineModule(torch.nn.Module):\\n    'What it is made of.'\\n"
    "class Mine(Block):\\n    'Of somebody else.'\\n    def build(self, channels): ...\\n"
)
blocks.__path__.append(str(folder))
assert blocks.BLOCKS.summary("mine") == "Of somebody else."
assert "torch" not in sys.modules
assert blocks.BLOCKS.load("mine").__name__ == "Mine"
"""
    assert imported(code) == {"torch"}


def test_test_files_have_names_of_their_own():
    """Two of one name cannot be collected together."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_importing_the_package_costs_nothing():
    assert imported("import sesurgery") == set()


def test_planning_imports_no_framework():
    """A text graph, a block that needs no framework, a plan: in a process of its own."""
    code = """
from dataclasses import dataclass
from sesurgery import planner
from sesurgery.blocks.base import Block
from sesurgery.graph import GraphView
from sesurgery.placements import PLACEMENTS
from sesurgery.spec import Catalogs, load

@dataclass(frozen=True)
class Fake(Block):
    def build(self, channels):
        raise NotImplementedError

class Fakes:
    kind = "block"
    def names(self):
        return ("fake", "digits", "onnxruntime")
    def load(self, name):
        return Fake

spec = load(
    {
        "version": 1,
        "model": {"source": "timm", "name": "any"},
        "input": {"shape": [8, 8, 8]},
        "surgery": [{"insert": "fake", "at": "residual"}],
    },
    Catalogs(Fakes(), PLACEMENTS, Fakes(), Fakes()),
)
graph = GraphView.parse('''
x = input() : 8x8x8
conv = conv(x) [3x3 s1 p1 8->8] @unit.conv : 8x8x8
add = add(conv, x) @unit : 8x8x8
''')
assert [site.key for site in planner.plan(spec, graph).sites] == ["fake/unit[0]"]
"""
    assert imported(code) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", "--help"], ["frobnicate"]], ids=" ".join)
def test_python_dash_m_is_the_same_program(arguments):
    script = Path(sys.executable).with_name("sesurgery")
    ways = [
        subprocess.run([*way, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
        for way in ([str(script)], [sys.executable, "-m", "sesurgery"])
    ]
    assert len({(way.returncode, way.stdout, way.stderr) for way in ways}) == 1
    assert ways[0].stdout or ways[0].stderr


def test_there_are_specs():
    assert {"digits.yaml", "seresnet50.yaml"} <= {path.name for path in SPECS}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_every_spec_plans(path):
    assert pipeline.plan(pipeline.load_spec(path)).plan.sites


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_every_spec_names_the_schema_for_editors(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("$schema=")[2]).is_file()


def test_plan_as_json_has_the_keys_and_figures_that_are_promised(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sesurgery", "plan", str(ROOT / "specs" / "seresnet50.yaml"), "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    found = json.loads(done.stdout)
    assert {"sites", "rejected", "totals"} <= found.keys()
    assert len(found["sites"]) == 16
    for site in found["sites"]:
        assert {
            "key",
            "rule",
            "scope",
            "stage",
            "channels",
            "height",
            "width",
            "block",
            "params",
            "macs",
        } <= site.keys()
    totals = found["totals"]
    assert (totals["params_before"], totals["params_after"]) == (25_557_032, 28_088_024)
    assert totals["macs_before"] + sum(site["macs"] for site in found["sites"]) == totals["macs_after"]
    expected = {
        "key": "se/layer1.0[0]",
        "rule": "se",
        "scope": "layer1.0",
        "stage": 1,
        "channels": 256,
        "height": 56,
        "width": 56,
        "params": 2 * 256 * 16 + 16 + 256,
        "macs": 2 * 256 * 16,
    }
    assert {key: found["sites"][0][key] for key in expected} == expected


def tracked() -> list[Path]:
    """The files under version control; none where this is not a checkout."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    return [ROOT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


# Built from parts, or this file would name one itself.
MACHINES = re.compile(r"(?<![\w.~-])/(" + "|".join(("work", "root", "home", "Users")) + r")/")


def test_the_check_for_paths_would_notice_one():
    assert MACHINES.search("see /" + "root/.cache/x")
    assert not MACHINES.search("net/home/x, https://example.org/home/x, ~/" + "home/")


def test_no_tracked_file_names_a_path_of_somebodys_machine():
    files = [path for path in tracked() if path.is_file()]
    if not files:
        pytest.skip("this is not a git checkout")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if MACHINES.search(line)
    ]
    assert found == []


def imports_of(file: Path) -> set[str]:
    """What a file imports, in functions too; not what is for type checkers alone. `from a import b` is `a.b`."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{name.name}" for name in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found


def module_graph(folder: Path) -> dict[str, set[str]]:
    """Every file of a package as a module, and the files of the package that it imports."""
    files = {
        ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in folder.rglob("*.py")
    }
    found = {module: imports_of(file) for module, file in files.items()}
    return {
        module: {name if name in files else name.rpartition(".")[0] for name in names} & files.keys()
        for module, names in found.items()
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_the_check_for_circles_would_notice_one(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from house.b import thing\n")
    (package / "b.py").write_text("def late():\n    from house import a\n")
    assert set(circle(module_graph(package))) == {"house.a", "house.b"}


def test_no_two_files_import_each_other():
    """Imports within functions count: they put off the circle and do not open it."""
    assert circle(module_graph(ROOT / "sesurgery")) == []


def test_what_begins_with_an_underscore_is_imported_nowhere():
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("sesurgery", "tests", "benchmarks", "examples")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in imports_of(file)
        if name.startswith("sesurgery.") and re.search(r"\._[^_]", name)
    ]
    assert found == []


def private_names(file: Path) -> list[str]:
    """Names that begin with `_` which a file reaches and did not make: attributes, and texts given to `setattr`."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    # What stands for a library in tests is private to them: a file's own, and that of its neighbours.
    beside = [path for name in imports_of(file) if (path := file.with_name(f"{name}.py")).is_file()]
    made = [*nodes, *(node for path in beside for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))]
    own = {node.attr for node in attributes if ast.unparse(node.value) in ("self", "cls")}
    own |= {node.name for node in made if isinstance(node, ast.FunctionDef)}
    own |= {node.id for node in made if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    reached = [(node.lineno, node.value, node.attr) for node in attributes]
    for call in nodes:
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("setattr"):
            texts = [item.value for item in call.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            reached += [(call.lineno, call.args[0], text.rpartition(".")[2]) for text in texts]
    return [
        f"{file.relative_to(ROOT)}:{line}: {ast.unparse(owner)}.{name}"
        for line, owner, name in reached
        if re.match("_[^_]", name) and name not in {*own, *OF_TORCH}
        if ast.unparse(owner).partition(".")[0] not in FOREIGN
    ]


OF_TORCH = ("_forward_hooks", "_forward_pre_hooks")
"""A module's hooks, which torch lists nowhere else."""
FOREIGN = ("torch", "torchvision", "pickle", "datasets", "functools", "os", "sys")
"""Packages of others, which have no public name for what a test needs of them."""


def test_what_begins_with_an_underscore_is_reached_by_no_test():
    """Tests hold what others may rely on; what is private may change without them."""
    files = [file for folder in ("tests", "benchmarks", "examples") for file in sorted((ROOT / folder).rglob("*.py"))]
    assert [name for file in files for name in private_names(file)] == []


def calls_of(file: Path) -> set[str]:
    """The names of everything that a file calls, as they are written."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def outside_cli() -> list[Path]:
    package = ROOT / "sesurgery"
    return [file for file in sorted(package.rglob("*.py")) if not file.is_relative_to(package / "cli")]


def test_the_command_line_alone_prints_and_exits():
    told = {"print", "sys.exit", "exit", "os._exit", "input"}
    found = {str(file.relative_to(ROOT)): calls_of(file) & told for file in outside_cli()}
    assert {file: calls for file, calls in found.items() if calls} == {}
    assert [
        str(file) for file in outside_cli() if "click" in {name.partition(".")[0] for name in imports_of(file)}
    ] == []


ENVIRONMENT = {"trust.py", "training/machine.py", "backends/inductor.py"}
"""Files outside the command line that read it, each for a convention that is not ours."""


def test_the_environment_is_read_where_contributing_says():
    read = re.compile(r"\bos\.(environ|getenv)\b")
    found = {
        file.relative_to(ROOT / "sesurgery").as_posix()
        for file in outside_cli()
        if read.search(file.read_text(encoding="utf-8"))
    }
    assert found == ENVIRONMENT
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [file for file in ENVIRONMENT if f"`{file}`" not in page] == []


def contracts() -> dict[str, dict]:
    """The contracts of import-linter by their names."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["name"]: contract for contract in found["tool"]["importlinter"]["contracts"]}


def test_contributing_lists_the_layers_and_what_planning_is_as_the_contracts_do():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layers = re.search(r"Imports point downward only:\n\n```\n(.*?)```", page, re.S)[1].split()
    planning = re.findall(r"`(\w+)`", re.search(r"Planning\n?\s*\((.*?)\)", page, re.S)[1])
    found = contracts()
    named = [name.removeprefix("sesurgery.") for name in found["imports point downward only"]["layers"]]
    assert layers == named
    sources = found["planning needs no framework"]["source_modules"]
    assert sorted(planning) == sorted(name.removeprefix("sesurgery.") for name in sources)


def test_the_unit_tests_mirror_the_package():
    """A folder of the package has its tests in the folder of that name, a module at its root in a file of that name."""
    unit, package = ROOT / "tests" / "unit", ROOT / "sesurgery"
    tests = [file.relative_to(unit) for file in unit.rglob("test_*.py")]
    folders = {file.parent for file in tests}
    assert [str(folder) for folder in sorted(folders) if not (package / folder).is_dir()] == []
    assert [
        folder.name
        for folder in sorted(package.iterdir())
        if any(folder.glob("*.py")) and not any(file.parts[0] == folder.name for file in tests)
    ] == []
    modules = tuple(f"test_{file.stem}" for file in package.glob("*.py"))
    assert [str(file) for file in tests if len(file.parts) == 1 and not file.stem.startswith(modules)] == []


def test_the_two_surgeons_have_the_same_file_names_where_they_do_the_same():
    fx, onnx = (
        {file.stem for file in (ROOT / "sesurgery" / "surgeons" / name).glob("*.py")} for name in ("fx", "onnx")
    )
    assert {"surgeon", "view", "ops", "edit", "proof"} <= fx & onnx
