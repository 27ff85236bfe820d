"""Docs and code name the same things: verbs, plugins, spec keys, error codes, messages, links; and commands run."""

import dataclasses
import hashlib
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fixtures.pages import PAGES, blocks
from fixtures.sharing import Once
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sesurgery import pipeline
from sesurgery import spec as sections
from sesurgery.backends import BACKENDS
from sesurgery.blocks import BLOCKS
from sesurgery.cli import program
from sesurgery.diagnostics import CODES
from sesurgery.lowering import PASSES
from sesurgery.lowering.precision.half import Precision
from sesurgery.lowering.precision.int8 import Quantize
from sesurgery.networks.keymaps import KEYMAPS
from sesurgery.placements import PLACEMENTS
from sesurgery.spec.frozen import Frozen
from sesurgery.spec.plugins import options_adapter
from sesurgery.spec.schema import json_schema
from sesurgery.training.data import DATASETS
from sesurgery.training.presets import PRESETS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SPEC_DOC = ROOT / "docs" / "spec.md"
ERRORS_DOC = ROOT / "docs" / "errors.md"

MODELS = {
    name: value
    for section in pkgutil.iter_modules(sections.__path__, "sesurgery.spec.")
    for name, value in vars(importlib.import_module(section.name)).items()
    if isinstance(value, type) and issubclass(value, Frozen) and value is not Frozen
}
SCHEMA = json_schema(pipeline.catalogs())
PLUGINS = {
    f"{catalog.kind}: {name}": catalog.load(name)
    for catalog in (BLOCKS, PLACEMENTS, DATASETS, PASSES, PRESETS, KEYMAPS)
    for name in catalog.names()
} | {"pass: precision": Precision, "pass: quantize": Quantize}


# --- the spec reference -----------------------------------------------------------------------------------------------


def documented_tables() -> dict[str, dict[str, list[str]]]:
    """Every table behind a `<!-- table: NAME -->` mark: key -> the cells after it."""
    tables: dict[str, dict[str, list[str]]] = {}
    for mark, body in re.findall(r"<!-- table: (.+?) -->\n\n((?:\|.*\n)*)", SPEC_DOC.read_text()):
        rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in body.splitlines()[2:]]
        tables[mark] = {row[0].strip("`"): row[1:] for row in rows}
    return tables


def expected_rows(properties: dict[str, dict], defaults: dict[str, object]) -> dict[str, list[str]]:
    """Type and default of every key, as the reference must print them."""
    return {key: [_type(part), _default(defaults[key])] for key, part in properties.items()}


def _type(schema: dict) -> str:
    if isinstance(schema.get("type"), list):
        return " or ".join(schema["type"]).replace("object", "mapping")
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"] if part.get("type") != "null"))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{name}`" for name in schema["enum"])
    if "$ref" in schema or "discriminator" in schema or schema.get("type") == "object":
        return "mapping"
    kind = schema.get("type", "mapping")
    if kind == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        if not isinstance(items, dict):
            items = schema["prefixItems"][0]
        count = f"{schema['maxItems']} x " if schema.get("minItems") == schema.get("maxItems", 0) else ""
        return f"list of {count}{_type(items)}"
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    return f"{kind} {', '.join(limits)}".strip()


def _default(value: object) -> str:
    if value is PydanticUndefined or value is dataclasses.MISSING:
        return "required"
    return f"`{_flow(value)}`"


def _flow(value: object) -> str:
    if isinstance(value, BaseModel):
        return _flow(
            {name: getattr(value, name) for name in type(value).model_fields if name in value.model_fields_set}
        )
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(value[key])}" for key in value) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value or '""'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def model_rows(name: str) -> dict[str, list[str]]:
    """The keys that a model adds to those of the model it extends, which has a table of its own."""
    inherited = {key for base in MODELS[name].__bases__ for key in base.model_fields}
    fields = {field.alias or key: field for key, field in MODELS[name].model_fields.items() if key not in inherited}
    # A model that is only extended has no schema of its own: its keys are in those that extend it.
    parts = [SCHEMA if part == "Spec" else SCHEMA["$defs"].get(part) for part in MODELS if _extends(part, name)]
    (properties, *_) = [part["properties"] for part in parts if part]
    return expected_rows({key: properties[key] for key in fields}, {key: _of(fields[key]) for key in fields})


def _extends(part: str, name: str) -> bool:
    return issubclass(MODELS[part], MODELS[name])


def _of(field: FieldInfo) -> object:
    # A whole part that is left out is the same as an empty one.
    whole = isinstance(field.default_factory, type)
    return {} if whole else field.get_default(call_default_factory=True)


def plugin_rows(name: str) -> dict[str, list[str]]:
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(PLUGINS[name])
    }
    return expected_rows(options_adapter(PLUGINS[name]).json_schema().get("properties", {}), defaults)


def test_the_spec_reference_has_a_table_for_every_part_and_no_other() -> None:
    assert set(documented_tables()) == {*MODELS, *PLUGINS}


@pytest.mark.parametrize("name", [*MODELS, *PLUGINS])
def test_the_spec_reference_lists_every_key_with_its_type_and_default(name: str) -> None:
    expected = model_rows(name) if name in MODELS else plugin_rows(name)
    documented = documented_tables()[name]
    assert {key: cells[:2] for key, cells in documented.items()} == expected
    assert all(cells[2] for cells in documented.values()), "every key needs its meaning"


def test_the_spec_reference_names_every_backend() -> None:
    text = SPEC_DOC.read_text()
    assert [name for name in BACKENDS.names() if f"| `{name}` |" not in text] == []


def test_every_spec_in_the_docs_is_one() -> None:
    found = 0
    for page in PAGES:
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            if "version:" in text:
                found += 1
                assert pipeline.load_spec(yaml.safe_load(text)).surgery
    assert found


# --- the error reference ----------------------------------------------------------------------------------------------


def test_every_error_code_has_a_section_under_its_title() -> None:
    assert dict(re.findall(r"^### `(SE\d{3})` (.+)$", ERRORS_DOC.read_text(), re.MULTILINE)) == CODES


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_comes_with_an_example_and_what_to_do(code: str) -> None:
    example, advice = _section(code)
    assert f"error[{code}]: " in example
    assert len(advice.split()) > 5


@pytest.mark.parametrize("code", [code for code in CODES if code < "SE400"])
def test_the_example_of_a_spec_error_is_what_the_program_prints(code: str) -> None:
    example, _ = _section(code)
    goldens = (ROOT / "tests" / "specs" / "bad").glob(f"{code}_*.err")
    # The page calls every spec net.yaml.
    assert any(example in path.read_text().replace(f"{path.stem}.yaml", "net.yaml") for path in goldens)


def _section(code: str) -> tuple[str, str]:
    """The example of a code's section, and the prose after it."""
    match = re.search(rf"^### `{code}` .*?```text\n(.*?)```\n(.*?)(?=^##|\Z)", ERRORS_DOC.read_text(), re.M | re.S)
    assert match, code
    return match[1], match[2]


# --- the README and the guide -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", program.commands)
def test_the_readme_names_every_verb(verb: str) -> None:
    assert f"`sesurgery {verb}" in README.read_text()


def runnable(language: str) -> list[str]:
    """The code blocks behind a `<!-- run -->` mark on any page."""
    found = (block for page in PAGES for block in blocks(page))
    return [block.text for block in found if block.language == language and block.mark == "run" and not block.said]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    return tmp_path


def execute(command: list[str], folder: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("block", runnable("console"))
def test_a_console_block_prints_what_it_shows(block: str, once: Once) -> None:
    commands = "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))
    shown = [line for line in block.splitlines() if not line.startswith("$ ") and line != "..."]

    def run() -> None:
        shutil.copytree(ROOT / "specs", "specs")
        Path("printed.txt").write_text(execute(["sh", "-e", "-c", commands], Path.cwd()))

    # Two pages may show the same commands.
    folder = once(f"console-{hashlib.sha256(commands.encode()).hexdigest()[:8]}", run)
    printed = (folder / "printed.txt").read_text().splitlines()
    assert [line for line in shown if line not in printed] == []


@pytest.mark.slow
@pytest.mark.parametrize("block", runnable("python"))
def test_a_python_block_runs(block: str, workspace: Path) -> None:
    execute([sys.executable, "-c", block], workspace)


def test_there_are_blocks_to_run() -> None:
    assert runnable("console")
    assert runnable("python")


# --- all pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_verb_or_a_make_target_that_is_not_there(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", text)) <= targets
    assert set(re.findall(r"`sesurgery ([a-z][\w-]*)", text)) <= set(program.commands)


WALKS = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## One block")[2].split("\n### ")[1:]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.splitlines()[0])
def test_a_block_is_followed_through_at_most_eight_files_that_are_there(walk: str) -> None:
    files = re.findall(r"^\| `([\w/]+\.py)` \|", walk, flags=re.MULTILINE)
    assert 1 <= len(files) <= 8
    assert [file for file in files if not (ROOT / "sesurgery" / file).is_file()] == []


def test_the_block_that_is_followed_is_the_first_of_its_spec() -> None:
    site = pipeline.plan(pipeline.load_spec(ROOT / "specs" / "digits.yaml")).plan.sites[0]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert (site.stage, site.channels) == (1, 16)
    assert [name for name in (site.key, site.module, site.value) if f"`{name}`" not in page] == []


# --- what pages name --------------------------------------------------------------------------------------------------


def test_every_import_that_a_page_shows_works():
    found = {}
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for module, names in re.findall(r"^from (sesurgery[\w.]*) import ([\w, ]+)$", block, re.MULTILINE):
                for name in (part.split(" as ")[0].strip() for part in names.split(",")):
                    found[f"{page.name}: {module}.{name}"] = _is_there(module, name)
    assert [place for place, there in found.items() if not there] == []
    assert len(found) > 20


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return False


WALK = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## One block, followed through")[2]


@pytest.mark.parametrize("leg", WALK.split("\n### ")[1:], ids=lambda leg: leg.splitlines()[0])
def test_one_block_is_followed_through_at_most_eight_files(leg):
    files = re.findall(r"^\| `([\w/]+\.py)` \|", leg, re.MULTILINE)
    assert 0 < len(files) <= 8
    assert [file for file in files if not (ROOT / "sesurgery" / file).is_file()] == []
