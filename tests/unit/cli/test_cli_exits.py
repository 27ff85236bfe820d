"""Exit codes: 0 done, 1 input or machine, 2 usage, 3 a bug, 4 a check failed, 130 interrupted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sesurgery import pipeline

VERBS = (
    "run",
    "check",
    "plan",
    "apply",
    "train",
    "evaluate",
    "compare",
    "gates",
    "export",
    "build-engine",
    "verify",
    "bench",
    "schema",
    "list",
    "doctor",
)


def test_help_is_no_error_and_lists_the_verbs_in_the_order_of_work(sesurgery):
    ended = sesurgery("--help")
    assert (ended.code, ended.err) == (0, "")
    listed = [word for word in re.findall(r"^  ([a-z-]+)  ", ended.out, re.MULTILINE) if word in VERBS]
    assert listed == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, sesurgery):
    ended = sesurgery(verb, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: sesurgery {verb} ")


USAGE = [
    ("frobnicate",),
    ("plan",),
    ("plan", "a.yaml", "b.yaml"),
    ("plan", "--frobnicate", "a.yaml"),
    ("list", "engines"),
    ("check",),
    ("build-engine", "--batch", "many"),
    ("build-engine", "--batch", "8,4,16"),
    ("build-engine", "--batch", "1,2"),
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_a_wrong_command_line_exits_2_and_shows_the_usage(arguments, sesurgery, here):
    ended = sesurgery(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert "Usage: sesurgery" in ended.err
    assert "Traceback" not in ended.err


INPUT = [
    (("plan", "nowhere.yaml"), "SE001"),
    (("check", "wrong.yaml"), "SE101"),
    (("plan", "wrong.yaml"), "SE101"),
    (("apply", "wrong.yaml"), "SE101"),
    (("run", "wrong.yaml"), "SE101"),
    (("train", "wrong.yaml"), "SE101"),
    (("train", "nowhere"), "SE402"),
    (("train",), "SE402"),
    (("evaluate",), "SE402"),
    (("evaluate", "nowhere"), "SE402"),
    (("export",), "SE402"),
    (("export", "nowhere"), "SE402"),
    (("build-engine",), "SE402"),
    (("build-engine", "nowhere"), "SE402"),
    (("build-engine", "nowhere.onnx"), "SE402"),
    (("build-engine", "nowhere.onnx", "--fp16"), "SE402"),
    (("build-engine", "--backend", "onnxruntim"), "SE105"),
    (("verify",), "SE402"),
    (("verify", "nowhere.onnx"), "SE402"),
    (("bench",), "SE402"),
    (("bench", "nowhere.onnx"), "SE402"),
]


@pytest.mark.parametrize(
    ("arguments", "code"), INPUT, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_mistake_in_the_input_exits_1_with_its_code_and_no_traceback(arguments, code, sesurgery, empty):
    Path("wrong.yaml").write_text(Path("tiny.yaml").read_text().replace("reduction", "reducton"))
    if "--backend" in arguments:
        pipeline.apply(pipeline.load_spec("tiny.yaml"), pipeline.Workspace(), "tiny.yaml")
    ended = sesurgery(*arguments)
    assert ended.code == 1
    assert ended.out == ""
    assert f"error[{code}]" in ended.err
    assert "Traceback" not in ended.err
    assert "defect" not in ended.err


def test_two_mistakes_are_counted(sesurgery, empty):
    Path("wrong.yaml").write_text(Path("tiny.yaml").read_text().replace("reduction", "reducton") + "trian: {}\n")
    assert sesurgery("check", "wrong.yaml").err.splitlines()[-1] == "2 errors"


def test_check_goes_on_after_a_bad_spec(sesurgery, empty):
    Path("wrong.yaml").write_text("version: 1\n")
    ended = sesurgery("check", "wrong.yaml", "tiny.yaml")
    assert ended.code == 1
    assert ended.out == "tiny.yaml: tiny, 1 rule, good\n"
    assert "wrong.yaml:1:1" in ended.err


def test_a_defect_of_our_own_exits_3_with_one_line_and_a_log(sesurgery, empty, monkeypatch):
    def broken(*arguments: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(pipeline, "plan", broken)
    ended = sesurgery("plan", "tiny.yaml")
    assert ended.code == 3
    assert ended.out == ""
    first, second = ended.err.splitlines()
    assert first == "internal error: KeyError: 'a defect'"
    log = Path(second.rpartition(" ")[2])
    text = log.read_text()
    log.unlink()
    assert "command: sesurgery plan tiny.yaml" in text
    assert "Traceback (most recent call last)" in text


def test_an_engine_that_falls_short_exits_4_and_says_what_was_asked_and_found(sesurgery, empty):
    text = Path("tiny.yaml").read_text().replace("{batches: [64]}", "{batches: [64], fp16: {max_abs: 1.0e-9}}")
    Path("strict.yaml").write_text(text)
    assert sesurgery("apply", "strict.yaml").code == 0
    assert sesurgery("build-engine", "--fp16").code == 0
    ended = sesurgery("verify")
    assert ended.code == 4
    assert "FAILED" in ended.out
    assert re.search(
        r"error\[SE701\]: strict\.onnxruntime\.fp16\.onnx at batch 64: max_abs: asked <= 1e-09, found", ended.err
    )


def test_an_interruption_exits_130(sesurgery, empty, monkeypatch):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "plan", interrupted)
    ended = sesurgery("plan", "tiny.yaml")
    assert (ended.code, ended.out) == (130, "")
    assert ended.err.splitlines()[-1] == "interrupted"


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
    ids=["nothing", "a count", "a policy"],
)
def test_threads_of_torch_sleep_soon_unless_the_environment_says_otherwise(given: dict[str, str], count: str) -> None:
    code = """
import os, click
from sesurgery.cli.exits import guarded
@click.command()
def program():
    print(os.environ.get("GOMP_SPINCOUNT"))
guarded(program)
"""
    plain = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**plain, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == count
