"""What each verb writes, on which stream, and which artefact it takes when none is named."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sesurgery.pipeline.bench import prices
from sesurgery.spec.latency import Latency
from sesurgery.verification import service

SHORT = Latency(rounds=10, repeats=1, placements=4, half_width=None, warmup_seconds=0, threads=1)


def test_plan_shows_the_table_the_stages_and_one_line_of_sum(sesurgery, empty):
    ended = sesurgery("plan", "tiny.yaml")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "site            stage  channels  size  block            on",
        "se/layer1.0[0]  1      16        8x8   se(reduction=4)  layer1_0_bn2",
        "se/layer2.0[0]  2      32        4x4   se(reduction=4)  layer2_0_bn2",
        "se/layer3.0[0]  3      64        2x2   se(reduction=4)  layer3_0_bn2",
        "stages: 1 = 8x8, 2 = 4x4, 3 = 2x2",
        "3 sites, +2.83 k (+3.6%) parameters, +2.69 k (+0.4%) MACs",
    ]
    assert ended.err.startswith("warning: the hidden width is 4 at 16 channels")


def test_plan_explains_what_was_turned_down_and_what_was_taken_whole(sesurgery, empty):
    text = Path("tiny.yaml").read_text().replace("at: residual", "at: residual\n    stages: [2, 3]")
    Path("some.yaml").write_text(text)
    ended = sesurgery("plan", "some.yaml", "--explain")
    assert "turned down: 1\n  se: layer1.0: stage 1 is not in 'stages'\n" in ended.out
    assert "taken as a whole when tracing: 0\n" in ended.out


def test_apply_says_where_the_run_is(sesurgery, empty):
    ended = sesurgery("apply", "tiny.yaml")
    assert ended.code == 0
    assert ended.out == "3 sites, +2.83 k (+3.6%) parameters, +2.69 k (+0.4%) MACs -> runs/tiny\n"
    assert Path("runs/tiny/weights.safetensors").is_file()


def test_train_takes_a_spec_and_applies_it_first(sesurgery, empty):
    Path("tiny.yaml").write_text(Path("tiny.yaml").read_text().replace("epochs: 4", "epochs: 1"))
    ended = sesurgery("train", "tiny.yaml")
    assert ended.code == 0
    assert ended.out.startswith("1 epoch, held-out top-1 ")
    assert ended.out.endswith(" -> runs/tiny\n")
    assert ended.err.startswith("epoch 1/1  loss ")


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (("evaluate",), "run: runs/tiny"),
        (("export",), "run: runs/tiny"),
        (("build-engine",), "run: runs/tiny"),
        (("verify",), "engine: engines/tiny.onnxruntime.fp32.onnx"),
        (("bench",), "engine: engines/tiny.onnxruntime.fp32.onnx"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_verb_without_its_argument_takes_the_newest_and_says_which(arguments, taken, sesurgery, here):
    ended = sesurgery(*arguments)
    assert ended.code == 0
    assert ended.err.splitlines()[0] == f"taking the newest {taken}"
    assert ended.out


def test_an_engine_is_built_as_the_options_say(sesurgery, here):
    ended = sesurgery("build-engine", "runs/tiny", "--fp16", "--batch", "1,2,4")
    assert ended.code == 0
    assert ended.out.endswith(" -> engines/tiny.onnxruntime.fp16.onnx\n")
    details = json.loads(Path("engines/tiny.onnxruntime.fp16.onnx.manifest.json").read_text())["details"]
    assert (details["precision"], details["engine"]["batch"]) == ("fp16", {"min": 1, "opt": 2, "max": 4})


def test_bench_writes_the_report(sesurgery, here):
    ended = sesurgery("bench")
    assert ended.out.splitlines()[0] == (
        "engines/tiny.onnxruntime.fp32.onnx against engines/tiny.plain.onnxruntime.fp32.onnx"
    )
    assert "SE tax" in ended.out
    assert Path("runs/tiny/report.html").is_file()


def test_bench_as_json_has_each_batch_in_trtexecs_words(sesurgery, here):
    ended = sesurgery("bench", "--batch", "1,4", "--json")
    one, four = json.loads(ended.out)["engines"]
    assert (one["batch"], four["batch"]) == (1, 4)
    assert set(one["tax"]) >= {"value", "low", "high", "per"}
    for form in ("lowered", "as_exported", "plain"):
        assert one[form]["latency_ms"]["percentile(99%)"] > 0
    assert one["lowered"]["tax"] == one["tax"]


def test_bench_races_with_each_number_of_threads_and_serves_every_engine(sesurgery, here, monkeypatch):
    monkeypatch.setattr(service, "SECONDS", 0.01)
    ended = sesurgery("bench", "--threads", "1,2", "--streams", "1,3", "--json", "--fail-if", "median > 1000 ms")
    assert ended.code == 0
    one, two = json.loads(ended.out)["engines"]
    assert [(each["threads"], each["title"]) for each in (one, two)] == [
        (1, "onnxruntime fp32, batch 1, 1 thread"),
        (2, "onnxruntime fp32, batch 1, 2 threads"),
    ]
    for form in ("lowered", "as_exported", "plain"):
        served = one[form]["service"]
        assert [each["streams"] for each in served["streams"]] == [1, 3]
        assert served["cold_start_ms"]["load"] > 0
        assert served["streams"][0]["latency_ms"]["percentile(99%)"] > 0
    assert one["service"] == one["lowered"]["service"]
    page = Path("runs/tiny/report.html").read_text()
    assert "Cold start in a fresh process, onnxruntime fp32, batch 1, 2 threads" in page


def test_bench_tells_what_each_block_costs(sesurgery, here, monkeypatch):
    monkeypatch.setattr(prices, "PER_BLOCK", SHORT)
    ended = sesurgery("bench", "--per-block", "--no-as-exported")
    assert ended.code == 0
    assert "what each block costs, onnxruntime fp32, batch 1, 1 thread, 6 pairs of engines" in ended.out
    assert [line.split()[0] for line in ended.out.splitlines() if line.startswith("se/layer")] == [
        f"se/layer{stage}.0[0]" for stage in (1, 2, 3)
    ]
    assert "sum of the prices and of what is paid once: " in ended.out
    assert "picture -> runs/tiny/tiny.onnxruntime.fp32.onnx.prices.svg" in ended.out
    assert Path("runs/tiny/tiny.onnxruntime.fp32.onnx.prices.svg").is_file()
    assert "What each block costs" in Path("runs/tiny/report.html").read_text()


def test_plan_tells_the_price_of_every_site_before_any_training(sesurgery, empty, monkeypatch):
    monkeypatch.setattr(prices, "QUICK", SHORT)
    ended = sesurgery("plan", "tiny.yaml", "--price", "onnxruntime", "--seconds", "0", "--svg", "net.svg")
    assert ended.code == 0
    assert "what each block costs, onnxruntime fp32, batch 1" in ended.out
    assert "engines with untrained weights: latency does not depend on them" in ended.out
    assert " ms" in Path("net.svg").read_text()
    # Engines for prices alone are not left behind.
    assert sorted(path.name for path in Path().iterdir()) == ["net.svg", "tiny.yaml"]


def test_bench_ends_with_4_where_a_limit_is_broken_and_writes_it_for_a_build_server(sesurgery, here):
    ended = sesurgery("bench", "--fail-if", "median > 0 ms", "--fail-if", "p99 < 0 ms", "--junit", "limits.xml")
    assert ended.code == 4
    assert "error[SE702]: tiny.onnxruntime.fp32.onnx at batch 1: --fail-if 'median > 0 ms': found " in ended.err
    suite = ElementTree.parse("limits.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_bench_says_what_is_no_limit_before_anything_is_timed(sesurgery, here):
    ended = sesurgery("bench", "--fail-if", "speed > 5")
    assert ended.code == 2
    assert "'speed > 5' is not a limit: write it as 'tax > 5 %'" in ended.err


def test_bench_says_what_is_no_number_of_threads(sesurgery, here):
    ended = sesurgery("bench", "--threads", "two")
    assert (ended.code, "'two' is not a list of threads; write them as 1,8" in ended.err) == (2, True)
    ended = sesurgery("bench", "--streams", "1,100000")
    assert (ended.code, "100000 streams are more than 1024" in ended.err) == (2, True)


def test_bench_says_what_is_no_list_of_batches(sesurgery, here):
    ended = sesurgery("bench", "--batch", "1;8")
    assert ended.code == 2
    assert "'1;8' is not a list of batch sizes; write them as 1,8" in ended.err


JSON = [
    ("plan", "tiny.yaml", "--json"),
    ("evaluate", "--json"),
    ("verify", "--json"),
    ("bench", "--json"),
    ("doctor", "--json"),
    ("schema",),
]


@pytest.mark.parametrize("arguments", JSON, ids=lambda value: value[0])
def test_stdout_is_json_and_nothing_else(arguments, sesurgery, here):
    ended = sesurgery(*arguments)
    assert ended.code == 0
    assert json.loads(ended.out)


def test_a_failed_check_still_gives_its_json(sesurgery, empty):
    text = Path("tiny.yaml").read_text().replace("{batches: [64]}", "{batches: [64], fp16: {max_abs: 1.0e-9}}")
    Path("strict.yaml").write_text(text)
    sesurgery("apply", "strict.yaml")
    sesurgery("build-engine", "--fp16")
    ended = sesurgery("verify", "--json")
    assert ended.code == 4
    assert json.loads(ended.out)


def test_evaluate_takes_several_runs(sesurgery, here):
    sesurgery("apply", "tiny.yaml")
    found = json.loads(sesurgery("evaluate", "runs/tiny", "runs/tiny-2", "--json").out)
    trained, fresh = found["runs"]
    assert (trained["run"], fresh["run"]) == ("runs/tiny", "runs/tiny-2")
    for scores in (trained, fresh):
        assert scores["samples"] == 180
        assert scores["top1_interval"][0] <= scores["top1"] <= scores["top1_interval"][1]
        assert scores["top1"] <= scores["top3"] <= scores["top5"]
        assert {"loss", "ece"} <= set(scores)
        assert sum(each["samples"] for each in scores["classes"]) == 180
    table = sesurgery("evaluate", "runs/tiny", "runs/tiny-2").out.splitlines()
    assert [line.split()[0] for line in table] == ["run", "runs/tiny", "runs/tiny-2"]


def test_compare_says_what_it_can_tell(sesurgery, here):
    sesurgery("apply", "tiny.yaml")
    found = json.loads(sesurgery("compare", "runs/tiny", "runs/tiny-2", "--json").out)
    assert (found["first"], found["second"], found["samples"]) == ("runs/tiny", "runs/tiny-2", 180)
    first, second = found["top1"]
    assert found["difference"]["value"] == pytest.approx(first - second)
    # The second was not trained.
    assert (found["accuracy"], found["epochs_to"]) == (None, [None, None])
    same = sesurgery("compare", "runs/tiny", "runs/tiny", "--accuracy", "0").out.splitlines()
    assert [line.split()[-2:] for line in same[1:3]] == [["0", "1"]] * 2
    assert same[-1].startswith("verdict: runs/tiny cannot be told apart from runs/tiny")


def test_compare_asks_for_the_same_held_out_samples(sesurgery, here):
    Path("other.yaml").write_text(Path("tiny.yaml").read_text().replace("held_out: 0.1", "held_out: 0.2"))
    sesurgery("apply", "other.yaml")
    ended = sesurgery("compare", "runs/tiny", "runs/other")
    assert ended.code == 1
    assert "error[SE501]: the runs do not hold out the same samples: runs/tiny has 180 of " in ended.err


def test_compare_pairs_runs_by_their_seed(sesurgery, here):
    sesurgery("apply", "tiny.yaml")
    Path("other.yaml").write_text(Path("tiny.yaml").read_text().replace("train: {", "train: {seed: 7, "))
    sesurgery("apply", "other.yaml")
    found = json.loads(sesurgery("compare", "runs/tiny", "--against", "runs/tiny-2", "--json").out)
    assert (found["first"], found["second"], found["seeds"]) == (["runs/tiny"], ["runs/tiny-2"], [0])
    assert found["difference"]["difference"] == pytest.approx(
        found["first_mean"]["mean"] - found["second_mean"]["mean"]
    )
    ended = sesurgery("compare", "runs/tiny", "--against", "runs/other")
    assert ended.code == 1
    assert (
        "error[SE501]: the runs were not trained from the same seeds: the first from 0, the second from 7" in ended.err
    )
    twice = sesurgery("compare", "runs/tiny", "runs/tiny-2", "--against", "runs/other")
    assert "runs/tiny and runs/tiny-2 were both trained from seed 0" in twice.err
    # As a shell writes `--against runs/tiny*`: all that follow belong to it.
    pattern = sesurgery("compare", "runs/other", "--against", "runs/tiny", "runs/tiny-2", "--json")
    assert "runs/tiny and runs/tiny-2 were both trained from seed 0" in pattern.err
    assert sesurgery("compare", "runs/tiny").code == 2


def test_the_schema_goes_to_a_file_when_asked(sesurgery, empty):
    ended = sesurgery("schema", "-o", "schema.json")
    assert (ended.code, ended.out) == (0, "")
    assert Path("schema.json").read_text() == sesurgery("schema").out


@pytest.mark.parametrize("what", ["blocks", "placements", "passes", "backends", "datasets"])
def test_list_describes_each_by_a_line(what, sesurgery):
    ended = sesurgery("list", what)
    assert ended.code == 0
    for line in ended.out.splitlines():
        name, _, description = line.partition(" ")
        assert name
        assert len(description.strip()) > 10


def test_log_lines_do_not_grow_with_the_model(sesurgery, empty):
    small = sesurgery("apply", "tiny.yaml")
    Path("deep.yaml").write_text(Path("tiny.yaml").read_text().replace("depth: 8", "depth: 20"))
    deep = sesurgery("apply", "deep.yaml")
    assert len(deep.out.splitlines()) == len(small.out.splitlines()) == 1
    assert len(deep.err.splitlines()) == len(small.err.splitlines())


def test_verify_measures_the_drift_of_an_engine_that_passes(sesurgery, here):
    ended = sesurgery("verify", "--drift")
    assert ended.code == 0
    assert "drift of onnxruntime fp32 along the network (all places at once, in a copy):" in ended.out
    assert ended.out.rstrip().endswith("no place is over 0.001, which fp32 explains")


def test_verify_repairs_an_engine_that_falls_short(sesurgery, here):
    # The weights of fp16 are rounded, and this tolerance asks for more.
    spec = Path("tiny.yaml").read_text().replace("{batches: [64]}", "{batches: [64], fp16: {max_abs: 1.0e-4}}")
    Path("strict.yaml").write_text(spec)
    sesurgery("apply", "strict.yaml")
    sesurgery("build-engine", "--fp16")
    ended = sesurgery("verify", "--drift")
    assert ended.code == 4
    assert "trying a repair: fp32" in ended.err
    assert 'onnxruntime fp16: repaired by fp32; in the spec: engines[-].precision: "fp32"' in ended.out
    assert "error[SE701]: strict.onnxruntime.fp16.onnx at batch 64: max_abs: asked <= 0.0001" in ended.err


def test_verify_says_which_engine_is_stale_and_verifies_the_others(sesurgery, here, give_other_weights):
    Path("other.yaml").write_text(Path("tiny.yaml").read_text())
    sesurgery("apply", "other.yaml")
    sesurgery("build-engine", "runs/other")
    give_other_weights(Path("runs/tiny"))
    engines = ("engines/tiny.onnxruntime.fp32.onnx", "engines/other.onnxruntime.fp32.onnx")
    ended = sesurgery("verify", *engines, "--json")
    assert ended.code == 1
    assert "error[SE401]: engines/tiny.onnxruntime.fp32.onnx was not built from the weights" in ended.err
    stale, other = json.loads(ended.out)["engines"]
    assert (stale["engine"], stale["verdict"], stale["batches"]) == (engines[0], "not verified", [])
    assert stale["drift"] == {"first_site": None, "kind": "stale", "repair": None}
    assert (other["engine"], other["verdict"], other["drift"]["kind"]) == (engines[1], "passed", None)


BLIND = """
import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        y = self.conv(x)
        y = y * torch.sigmoid(self.up(self.down(y.mean((2, 3), keepdim=True))))
        return x + y if y.sum() > -1e9 else x


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.conv(x) * int(x.max() < 1e9)


class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two, self.last = nn.Conv2d(3, 8, 3), Gated(), Gated(), Counts()
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.last(self.two(self.one(x))).mean((2, 3)))
"""


def test_plan_says_what_it_does_not_see_how_much_and_why(sesurgery, empty):
    Path("blind.py").write_text(BLIND)
    Path("blind.yaml").write_text(
        "version: 1\n"
        'model: {source: python, name: "blind:Blind"}\n'
        "input: {shape: [3, 8, 8]}\n"
        "surgery: [{insert: {block: se, min_width: 8}, at: conv}]\n"
    )
    ended = sesurgery("plan", "blind.yaml")
    assert ended.code == 0
    (line,) = [line for line in ended.out.splitlines() if "not seen:" in line]
    assert line.partition("not seen: ")[2] == (
        "3 convolutions and 2 channel gates in 3 parts that cannot be traced "
        "(one, two: symbolically traced variables cannot be used as inputs to control flow; "
        "last: a number depends on the batch or on data)"
    )
