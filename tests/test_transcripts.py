"""What pages show: the words of a transcript are the program's, its tables have the program's columns, calls have its
parameters. That needs no run, so it holds for the snippets that nothing runs as well."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from fixtures.pages import PAGES, ROOT, Snippet, blocks

from sesurgery.cli import program

TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "sesurgery").rglob("*.py")]
NAMES = {path.stem for path in (ROOT / "sesurgery").rglob("*.py")}
OTHERS = {
    "correlation": "a kernel of TensorRT-RTX",
    "avgpool": "a module of the network",
    "Trouser, Pullover, Dress": "classes of Fashion-MNIST",
    "reducton": "the mistake that is found",
}
"""Words on pages that are not the program's, and whose they are."""
WORD = re.compile(r"(?<![\w./=\[\]'-])[A-Za-z][a-z]+(?![\w./=\[\]])")


def _pieces() -> set[str]:
    """What strings of the package hold between the values that are put in."""
    texts = [
        line
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in node.value.splitlines()
    ]
    pieces = {piece.strip() for text in texts for piece in re.split(r"\{[\w.:]*\}", text)}
    return {piece for piece in pieces if len(piece) < 200 and WORD.search(piece)} | NAMES | set(OTHERS)


def _sequences() -> set[tuple[str, ...]]:
    """Rows of words in the package: the columns of its tables are among them."""
    found = set()
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Tuple | ast.List):
                found.add(tuple(e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)))
    return {row for words in found if len(row := tuple(filter(None, words))) > 2}


PIECES, SEQUENCES = _pieces(), _sequences()


def foreign(line: str) -> list[str]:
    """The words of a printed line that no string of the package has; names, paths and numbers are data."""
    known = bytearray(len(line))
    for piece in PIECES:
        at = line.find(piece)
        while at >= 0:
            end = at + len(piece)
            inside = (at and line[at - 1].isalpha() and line[at].isalpha()) or (
                line[end - 1].isalpha() and line[end : end + 1].isalpha()
            )
            if not inside:
                known[at:end] = b"\1" * len(piece)
            at = line.find(piece, at + 1)
    return [word.group() for word in WORD.finditer(line) if not all(known[word.start() : word.end()])]


def other_columns(line: str) -> tuple[str, ...] | None:
    """The columns of the package's table that begins and ends as a line of headings does, where the line lacks some."""
    cells = tuple(re.split(r"\s{2,}", line.strip()))
    if len(cells) < 3:
        return None
    tables = [row for row in SEQUENCES if row[0] == cells[0] and row[-1] == cells[-1]]
    # A table may have columns that are there at times alone, and are put in where it is made.
    if not tables or any(_holds(cells, row) for row in tables):
        return None
    return tables[0]


def _holds(cells: tuple[str, ...], row: tuple[str, ...]) -> bool:
    """Whether all of a row are among the cells, in its order."""
    rest = iter(cells)
    return all(word in rest for word in row)


def printed() -> Iterator[tuple[str, str]]:
    """Every line of a transcript that is not a command, with its place."""
    for page in PAGES:
        for block in blocks(page):
            for offset, line in enumerate(block.text.splitlines() if block.language == "console" else (), 1):
                if line.strip() not in ("", "...") and not line.startswith("$ "):
                    yield f"{page.relative_to(ROOT)}:{block.line + offset}", line


def test_what_a_transcript_says_the_program_says() -> None:
    assert [f"{place}: {words}: {line}" for place, line in printed() if (words := foreign(line))] == []


def test_a_table_in_a_transcript_has_the_columns_of_the_program() -> None:
    assert [f"{place}: {line}: {row}" for place, line in printed() if (row := other_columns(line))] == []


def test_there_are_transcripts_and_words_of_another_program_would_be_found() -> None:
    assert len(list(printed())) > 150
    assert foreign("convolutions: 39 in bf16; built in 0.3 s -> engines/digits.onnx") == []
    assert foreign("convolutions: 39 in bf16; constructed in 0.3 s -> engines/digits.onnx") == ["constructed"]
    assert other_columns("site  stage  channels  size  block  on") is None
    assert other_columns("site  stage  size  block  on") == ("site", "stage", "channels", "size", "block", "on")


# --- single snippets --------------------------------------------------------------------------------------------------


def snippet(page: str, text: str) -> Snippet:
    """The one snippet of a page in which a text stands."""
    (found,) = [block for block in blocks(ROOT / page) if text in block.text]
    return found


def answers(block: Snippet) -> list[str]:
    return [line for line in block.text.splitlines() if not line.startswith("$ ") and line != "..."]


def test_the_mistake_that_the_guide_shows_is_told_like_that() -> None:
    bad = ROOT / "tests" / "specs" / "bad" / "SE101_unknown_block_option"
    shown = snippet("docs/guide.md", "$ sesurgery check net.yaml")
    told = bad.with_suffix(".err").read_text(encoding="utf-8").replace(f"{bad.name}.yaml", "net.yaml")
    assert "\n".join(answers(shown)) == told.strip()


RESNET = """version: 1
model: {source: timm, name: resnet18}
input: {shape: [3, 64, 64]}
surgery: [{insert: {block: se, init: identity}, at: residual, stages: [2, 3], except: layer2.0}]
"""


def test_the_plan_that_the_guide_explains_is_printed_like_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resnet18.yaml").write_text(RESNET)
    program.main(["plan", "resnet18.yaml", "--explain"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    shown = answers(snippet("docs/guide.md", "$ sesurgery plan resnet18.yaml --explain"))
    assert [line for line in shown if line not in lines] == []


def test_the_batch_of_a_file_is_fixed_by_the_command_on_the_page(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> net (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }'
    )
    onnx.save(model, tmp_path / "net.onnx")
    (command,) = snippet("docs/free_se.md", "make_dynamic_shape_fixed").commands
    subprocess.run([sys.executable, *command.split()[1:]], cwd=tmp_path, check=True, capture_output=True)
    given = onnx.load(tmp_path / "net.1.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert given.dim_value == 1


# --- what nothing runs ------------------------------------------------------------------------------------------------

SHOWN = [(page, block) for page in PAGES for block in blocks(page) if block.mark == "shown"]


def test_few_snippets_are_run_by_nothing() -> None:
    assert len(SHOWN) <= 17


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_shells_snippet_that_nothing_runs_has_its_syntax() -> None:
    scripts = [(page, block) for page, block in SHOWN if block.language == "sh"]
    assert scripts
    for page, block in scripts:
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page.name}, line {block.line}: {done.stderr}"


def test_a_call_of_python_that_nothing_runs_has_the_parameters_that_there_are() -> None:
    calls = 0
    for page, block in SHOWN:
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("sesurgery."):
                module, _, name = ast.unparse(node.func).rpartition(".")
                named = {word.arg: None for word in node.keywords if word.arg}
                signature = inspect.signature(getattr(importlib.import_module(module), name))
                # Raises TypeError for one that is not there.
                signature.bind(*node.args, **named)
                calls += 1
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "runner":
                runner = importlib.import_module("sesurgery.backends.nvidia.runner")
                assert any(hasattr(kind, node.attr) for kind in vars(runner).values()), f"{page.name}: {node.attr}"
                calls += 1
    assert calls > 3


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_target_of_make_that_a_page_gives_is_one(tmp_path: Path) -> None:
    lines = {line for page in PAGES for block in blocks(page) for line in block.commands if line.startswith("make ")}
    targets = sorted({line.split()[1] for line in lines})
    assert {"demo", "test", "fuzz", "gpu", "docs", "check", "format"} <= set(targets)
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_call_of_pytest_that_a_page_gives_has_options_and_folders_that_are_there(
    pytestconfig: pytest.Config,
) -> None:
    lines = {line for page in PAGES for block in blocks(page) for line in block.commands if " -m pytest " in line}
    assert len(lines) > 3
    for line in lines:
        words = line.partition("#")[0].partition(" -m pytest ")[2].split()
        # Raises ValueError for one that is not there.
        given = [pytestconfig.getoption(word) for word in words if word.startswith("--")]
        assert len(given) == sum(word.startswith("--") for word in words)
        assert [word for word in words if word.startswith("tests/") and not (ROOT / word).exists()] == []
