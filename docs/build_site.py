"""The docs as a site: `python docs/build_site.py [FOLDER]`, which `make docs` calls. Decision 0020 says why.

The pages of this folder, the README and the other pages at the top are copied with their links rewritten; the reference
of the API, of the spec's schema, of the commands and of the benchmarks is generated. Then zensical builds them, with
every warning an error.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FILES = "files"
"""Where files lie that pages link to and that are not pages: specs, the licence."""
PUBLIC = {
    "Functions": (
        "sesurgery.api.insert",
        "sesurgery.api.plan",
        "sesurgery.api.apply",
        "sesurgery.pipeline.specs.load_spec",
    ),
    "Verbs": (
        *(f"sesurgery.pipeline.{name}" for name in ("plan.plan", "apply.apply", "train.train", "train.evaluate")),
        *(f"sesurgery.pipeline.{name}" for name in ("export.export", "lower.lower", "run.run")),
        "sesurgery.pipeline.build_engine.build_engine.build_engines",
        *(f"sesurgery.pipeline.{name}.{name}.{name}" for name in ("verify", "bench", "study")),
        *("sesurgery.serving.predict.predict", "sesurgery.serving.package.package"),
    ),
    "Contracts of plugins": (
        *("sesurgery.blocks.base.Block", "sesurgery.placements.base.Placement", "sesurgery.lowering.base.Pass"),
        *("sesurgery.backends.base.Backend", "sesurgery.backends.base.Runner", "sesurgery.training.data.base.Dataset"),
    ),
    "What is planned": (
        "sesurgery.planner.model.Plan",
        "sesurgery.planner.model.Site",
        "sesurgery.graph.view.GraphView",
    ),
}


def pages() -> dict[Path, str]:
    """Every page of the repository that is one of the site, and its place there."""
    found = {ROOT / name: place for name, place in TOP.items()}
    found |= {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))}
    return found | {ROOT / "examples" / "README.md": "examples.md"}


def rewritten(page: Path, place: str, others: dict[Path, str], source: Path) -> str:
    """A page's text with the links as they are on the site; files that are not pages are copied along."""

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if not target or re.match(r"\w+:", target):
            return match[0]
        path = (page.parent / target).resolve()
        new = others.get(path) or f"{FILES}/{path.relative_to(ROOT).as_posix()}"
        if path not in others:
            if path.is_relative_to(DOCS):
                new = path.relative_to(DOCS).as_posix()
            (source / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / new)
        relative = os.path.relpath(new, Path(place).parent)
        return f"]({relative}{'#' + anchor if anchor else ''})"

    parts = re.split(r"(```.*?```)", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return "".join(part if part.startswith("```") else re.sub(r"\]\(([^)\s]+)\)", link, part) for part in parts)


def api() -> str:
    """The reference of the API: what mkdocstrings makes of docstrings."""
    lines = [
        "# API",
        "",
        "What `import sesurgery` gives, the verbs behind the command line, and what plugins implement.",
    ]
    for title, names in PUBLIC.items():
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", f"::: {name}"]
    return "\n".join(lines) + "\n"


def schema() -> str:
    """Every key of a spec by part, as the JSON Schema has it."""
    from sesurgery import pipeline
    from sesurgery.spec.schema import json_schema

    whole = json_schema(pipeline.catalogs())
    lines = [
        "# Schema of a spec",
        "",
        "Every key, generated from the schema that `sesurgery schema` prints; what they mean",
    ]
    lines += ["is told in the [spec reference](spec.md)."]
    for name, part in {"Spec": whole, **whole["$defs"]}.items():
        if "properties" not in part:
            continue
        lines += [
            "",
            f"## {name}",
            "",
            part.get("description", ""),
            "",
            "| key | type | default | |",
            "| --- | --- | --- | --- |",
        ]
        for key, entry in part["properties"].items():
            default = f"`{json.dumps(entry['default'])}`" if "default" in entry else ""
            default = "required" if key in part.get("required", ()) else default
            lines.append(
                f"| `{key}` | {_cell(_type(entry))} | {_cell(default)} | {_cell(entry.get('description', ''))} |"
            )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _type(entry: dict[str, Any]) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name != "JsonValue" else "any"
    for joint in ("anyOf", "oneOf"):
        if joint in entry:
            return " or ".join(dict.fromkeys(_type(part) for part in entry[joint]))
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{name}`" for name in entry["enum"])
    kind = entry.get("type", "any")
    if kind == "array" and isinstance(entry.get("items"), dict):
        return f"list of {_type(entry['items'])}"
    return kind if isinstance(kind, str) else " or ".join(kind)


def commands() -> str:
    """The help text of every verb, as a terminal shows it."""
    from sesurgery.cli import program

    lines = ["# Commands", "", "What `sesurgery VERB --help` prints."]
    for name, verb in program.commands.items():
        context = click.Context(verb, info_name=f"sesurgery {name}", max_content_width=100, terminal_width=100)
        lines += ["", f"## {name}", "", "```text", verb.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def benchmarks(source: Path) -> str:
    """What each benchmark measures, by its own words, and the figures that are kept with the machine that made them."""
    lines = [
        "# Benchmarks",
        "",
        "Each is one script. Figures lie in `benchmarks/results`, with the machine and the versions.",
    ]
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        kept = [
            found
            for found in results
            if f"{found.stem}." in path.read_text(encoding="utf-8") or found.stem == path.stem
        ]
        lines += ["", f"## {path.relative_to(ROOT).as_posix()}", "", *_prose(told)]
        for found in kept:
            machine = json.loads(found.read_text(encoding="utf-8")).get("device", "")
            new = f"{FILES}/benchmarks/{found.name}"
            (source / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, source / new)
            lines += [
                "",
                f"Results: [{found.name}]({new}){f', on {machine}' if isinstance(machine, str) and machine else ''}",
            ]
    return "\n".join(lines) + "\n"


def _prose(told: str) -> Iterator[str]:
    """A docstring's paragraphs; what is indented in it is code."""
    for paragraph in re.split(r"\n\n+", told):
        if paragraph.startswith("    "):
            yield from ("```text", *(line[4:] for line in paragraph.splitlines()), "```", "")
        else:
            yield from (re.sub(r"<(\w+)>", r"`<\1>`", paragraph), "")


def assemble(source: Path) -> None:
    """Write every page of the site below a folder."""
    shutil.rmtree(source, ignore_errors=True)
    found = pages()
    for page, place in found.items():
        target = source / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(rewritten(page, place, found, source), encoding="utf-8")
    shutil.copytree(DOCS / "pictures", source / "pictures", dirs_exist_ok=True)
    (source / "api.md").write_text(api(), encoding="utf-8")
    (source / "schema.md").write_text(schema(), encoding="utf-8")
    (source / "commands.md").write_text(commands(), encoding="utf-8")
    (source / "benchmarks.md").write_text(benchmarks(source), encoding="utf-8")


def configuration() -> str:
    """mkdocs.yml with every page in its navigation, so that nobody has to keep a list of decisions."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("ROOT", ROOT.as_posix())
    decided = [f"decisions/{path.name}" for path in sorted((DOCS / "decisions").glob("0*.md"))]
    sections = {"Decisions": ["decisions/README.md", *decided]}
    if others := [path.name for path in sorted(DOCS.glob("*.md")) if f"- {path.name}\n" not in config]:
        sections["More"] = others
    listed = "".join(f"  - {title}: {json.dumps(names)}\n" for title, names in sections.items())
    return config.replace("\nMORE\n", f"\n{listed}")


def main(folder: Path) -> int:
    """Build the site in FOLDER/html; the exit code is zensical's, which is strict."""
    assemble(folder / "pages")
    (folder / "mkdocs.yml").write_text(configuration(), encoding="utf-8")
    zensical = Path(sys.executable).with_name("zensical")
    return subprocess.run(
        [zensical, "build", "--clean", "--strict", "-f", "mkdocs.yml"], cwd=folder, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()))
