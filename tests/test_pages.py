"""Commands on pages: each is one that the program takes, and those that need no more than a checkout are given."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from fixtures.files import write
from fixtures.pages import PAGES, ROOT, blocks
from PIL import Image

from sesurgery.backends import BACKENDS
from sesurgery.cli import main, program

VERBS = program.commands


@dataclass(frozen=True)
class Command:
    """A command line as a page has it: in a block, where it is whole, or within a sentence, where it may be a part."""

    place: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.words)}"


def commands() -> list[Command]:
    """Every `sesurgery ...` of every page."""
    found = []
    for page in PAGES:
        text, place = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
        for block in blocks(page):
            for line in block.commands:
                found += [Command(place, words, whole=True) for words in invocations(line)]
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        # Every second piece between backticks is code.
        spans = [span for paragraph in prose.split("\n\n") for span in paragraph.split("`")[1::2]]
        for span in (span for span in spans if re.search(r"\bsesurgery ", span)):
            line = " ".join(span.replace("\\|", "|").split())
            found += [Command(place, words, whole=False) for words in invocations(line)]
    return found


def invocations(line: str) -> list[tuple[str, ...]]:
    """The words after `sesurgery` of every call of it in a line of a shell."""
    # What a reader puts in, as [RUN|SPEC], is one word.
    line = re.sub(r"\[[A-Z|.]+\]|<[A-Z]+>", "X", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return []
    found: list[list[str]] = []
    inside = False
    for before, word in itertools.pairwise(["", *words]):
        # An image of docker's may have that name.
        if (word == "sesurgery" and before != "-t") or word.endswith("/sesurgery"):
            found.append([])
            inside = True
        elif word and set(word) <= set("|&;()<>"):
            inside = False
        elif inside:
            found[-1].append(word)
    return [tuple(each) for each in found if each]


def mistake(command: Command) -> str | None:
    """What the program's own parser has against a command; nothing is run."""
    name, *arguments = command.words
    if name.startswith("-"):
        return None
    if name not in VERBS:
        return f"there is no verb {name!r}"
    # Within a sentence, dots stand for what may follow.
    given = [word for word in arguments if word != "..."]
    verb = VERBS[name]
    try:
        verb.make_context(name, list(given)).close()
    except click.exceptions.Exit:
        return None
    except click.MissingParameter as error:
        return f"{error.format_message()}" if command.whole else None
    except click.BadParameter as error:
        # N, PRECISION, LIMIT: what is to be put in.
        placeholders = any(word.isupper() for word in given)
        return None if placeholders else error.format_message()
    except click.UsageError as error:
        return error.format_message()
    return None


COMMANDS = commands()


def test_every_command_on_a_page_is_one_that_the_program_takes() -> None:
    assert [f"{command}: {why}" for command in COMMANDS if (why := mistake(command))] == []


def test_there_are_commands_and_mistakes_in_them_would_be_found() -> None:
    assert len(COMMANDS) > 150
    assert {command.words[0] for command in COMMANDS} >= set(VERBS) - {"check"}
    wrong = ("planned x", "plan x --explian", "plan", "bench --batch x", "list passes blocks")
    found = [
        mistake(Command("page", words, whole=True)) for line in wrong for words in invocations(f"sesurgery {line}")
    ]
    assert all(found), found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_snippet_is_run_or_says_why_not(page: Path) -> None:
    found = blocks(page)
    assert [f"line {block.line}" for block in found if block.mark is None] == []
    assert [f"line {block.line}" for block in found if block.mark == "shown" and not block.said] == []
    # A shell's block is walked through, in this process.
    as_it_stands = [block for block in found if (block.mark, block.said) == ("run", None)]
    assert [f"line {block.line}" for block in as_it_stands if block.language == "sh"] == []
    named = [
        each for block in found if block.mark == "run" for each in re.findall(r"tests/[\w/]+\.py", block.said or "")
    ]
    assert [path for path in named if not (ROOT / path).is_file()] == []


WALKED = [page for page in PAGES if any(block.mark == "walk" for block in blocks(page))]


ON_A_FILE = """
version: 1
model: {source: onnx, name: net.onnx}
input: {shape: [3, 16, 16]}
surgery: [{remove: {block: se}}]
"""


@pytest.fixture
def small(tiny: Path, files: Path, brief_races: None) -> Path:
    """A folder in which pages are walked through: the project's specs, of which digits.yaml is of a small network.

    There are a trained run with its engine, ONNX files, samples and images under the names that pages give to theirs.
    """
    shutil.copytree(tiny, ".", copy_function=shutil.copy2, dirs_exist_ok=True)
    shutil.copytree(ROOT / "specs", "specs")
    shutil.copy("tiny.yaml", "specs/digits.yaml")
    for name in ("with_se", "without"):
        shutil.copytree("runs/tiny", Path("runs", name), copy_function=shutil.copy2)
    Path("net.yaml").write_text(ON_A_FILE)
    write("out.onnx")
    random = np.random.default_rng(0)
    np.savez("samples.npz", x=random.normal(size=(8, 3, 16, 16)).astype(np.float32))
    Path("digits").mkdir()
    Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save("digits/5.png")
    return Path.cwd()


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_snippets_of_a_page_run_one_after_the_other(page: Path, small: Path, monkeypatch) -> None:
    """Exit code 0 of all; 4 where a check ran and failed, as a small network in small time may.

    Commands whose backend cannot build here are left out.
    """
    given: dict[str, object] = {}
    for block in blocks(page):
        if block.mark != "walk":
            continue
        if block.language == "python":
            exec(compile(block.text, f"{page.name}, line {block.line}", "exec"), given)
        for line in block.commands:
            for words in invocations(line):
                if not lacking(words):
                    assert ended(words, monkeypatch) in (0, 4), f"{page.name}, line {block.line}: {line}"


def lacking(words: tuple[str, ...]) -> str | None:
    """Why the backend that a command names cannot build here."""
    named = [after for word, after in itertools.pairwise(words) if word in ("--backend", "--for")]
    found = [
        BACKENDS.load(name)().probe().builds for name in named if name in BACKENDS.names() and "lower" not in words
    ]
    return next(filter(None, found), None)


def ended(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command, given in this process."""
    monkeypatch.setattr(sys, "argv", ["sesurgery", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)
