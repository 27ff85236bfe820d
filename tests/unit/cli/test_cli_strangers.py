"""Folders made by others: no verb runs their code before the user has agreed. Each attack would leave a file."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
from strangers import WEIGHTS, manifest_of, of_somebody_else, replan, rewrite

from sesurgery import pipeline, trust
from sesurgery.backends.inductor import Inductor
from sesurgery.workspace import EngineDetails, EngineManifest, Provenance, describe

RAN = Path("ran")
MODULE = """\
import pathlib
pathlib.Path({ran!r}).touch()
from sesurgery.networks.cifar_resnet import CifarResNet as make_net
from torch.nn import BatchNorm2d as make_block
"""
SPEC = """\
version: 1
model: {source: python, name: "sesurgery.networks.cifar_resnet:CifarResNet", kwargs: {depth: 8, in_channels: 1}}
input: {shape: [1, 8, 8]}
surgery:
  - insert: {block: se, reduction: 4}
    at: residual
train: {data: {dataset: digits, held_out: 0.1}, epochs: 1, batch_size: 128, threads: 1}
"""
NET = SPEC.replace("sesurgery.networks.cifar_resnet:CifarResNet", "somebodys_code:make_net")
BLOCK = SPEC.replace("{block: se, reduction: 4}", '{block: python, factory: "somebodys_code:make_block"}')
# A network that names no code: the data alone do.
TIMM = """\
version: 1
model: {source: timm, name: resnet10t, kwargs: {num_classes: 10}}
input: {shape: [3, 32, 32]}
surgery: [{insert: {block: se, reduction: 4}, at: residual}]
train: {data: DATA, epochs: 1, batch_size: 128, threads: 1}
"""
DATA = TIMM.replace("DATA", '{dataset: python, factory: "somebodys_code:make_data"}')
PIPE = TIMM.replace("DATA", '{dataset: webdataset, train: "pipe:touch ran", held_out: "pipe:touch ran"}')
OF_A_RUN = (("evaluate", "runs/x"), ("export", "runs/x"), ("build-engine", "runs/x"), ("train", "runs/x"))
OF_AN_ENGINE = (("verify",), ("bench",))


def made(text: str) -> Path:
    """A run of a spec in the current folder, with nothing of its code left in memory."""
    Path("x.yaml").write_text(text)
    if "somebodys_code" in text:
        Path("somebodys_code.py").write_text(MODULE.format(ran=str(RAN.resolve())))
    run = pipeline.apply(pipeline.load_spec("x.yaml"), pipeline.Workspace(), "x.yaml").folder
    forget()
    return run


def forget() -> None:
    sys.modules.pop("somebodys_code", None)
    RAN.unlink(missing_ok=True)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("somebodys_code", None)


@pytest.mark.parametrize("arguments", [*OF_A_RUN, *OF_AN_ENGINE], ids=lambda words: words[0])
def test_a_plan_that_is_a_command_line_runs_nothing(arguments, sesurgery, here):
    def attack(plan):
        for site in plan["sites"]:
            site["channels"] = "touch ran"
            site["block"] = {"block": "python", "factory": "os:system", "kwargs": {}}

    replan(Path("runs/tiny"), attack)
    shutil.copytree("runs/tiny", "runs/x")
    ended = sesurgery(*arguments)
    assert not RAN.exists()
    # The run was not made here as it is now; with that agreed to, its plan is none.
    assert (ended.code, "error[SE4" in ended.err) == (1, True), ended.err
    ended = sesurgery(*arguments, "--trust")
    assert not RAN.exists()
    assert (ended.code, "error[SE401]" in ended.err) == (1, True), ended.err
    assert "sites.0.channels: Input should be a valid integer" in ended.err


@pytest.mark.parametrize(
    "block",
    [
        {"block": "python", "factory": "somebodys_code:make_block", "kwargs": {}},
        {"block": "se", "reduction": 8},
        {"block": "eca"},
    ],
    ids=["code", "another option", "another block"],
)
def test_a_plan_names_no_block_that_the_spec_does_not(block, sesurgery, folder):
    run = made(SPEC)
    Path("somebodys_code.py").write_text(MODULE.format(ran=str(RAN.resolve())))
    replan(run, lambda plan: [site.update(block=block) for site in plan["sites"]])
    ended = sesurgery("evaluate", "runs/x", "--trust")
    assert not RAN.exists()
    assert ended.code == 1
    assert "error[SE401]: runs/x/plan.json is not a plan of the run's spec: the block of se/layer1.0[0]" in ended.err


def test_a_block_with_true_for_one_is_another_block(sesurgery, folder):
    text = SPEC.replace(
        "{block: se, reduction: 4}", '{block: python, factory: "torch.nn:BatchNorm2d", kwargs: {eps: 1}}'
    )
    run = made(text)
    replan(run, lambda plan: [site["block"]["kwargs"].update(eps=True) for site in plan["sites"]])
    assert "is not a plan of the run's spec" in sesurgery("evaluate", "runs/x", "--trust").err


def test_a_site_that_the_network_does_not_have_is_not_built(sesurgery, folder):
    run = made(SPEC)
    replan(run, lambda plan: plan["sites"][0].update(channels=10**12))
    ended = sesurgery("evaluate", "runs/x", "--trust")
    assert ended.code == 1
    assert "error[SE403]" in ended.err
    assert "se/layer1.0[0] says 1000000000000x8x8, the network has 16x8x8 there" in ended.err


@pytest.mark.parametrize("text", [NET, BLOCK], ids=["network", "block"])
@pytest.mark.parametrize("arguments", OF_A_RUN, ids=lambda words: words[0])
def test_code_of_somebody_elses_run_waits_for_a_person(arguments, text, sesurgery, folder):
    run = made(text)
    of_somebody_else(run / WEIGHTS)
    ended = sesurgery(*arguments)
    assert ended.code == 1
    assert "error[SE409]: runs/x/weights.safetensors was not made here by you, and its spec runs " in ended.err
    assert "somebodys_code:make_" in ended.err
    assert "--trust" in ended.err
    assert not RAN.exists()
    assert "somebodys_code" not in sys.modules


@pytest.mark.parametrize(
    ("text", "named"),
    [(DATA, "somebodys_code:make_data"), (PIPE, "pipe:touch ran")],
    ids=["dataset: python", "dataset: webdataset"],
)
@pytest.mark.parametrize("arguments", OF_A_RUN, ids=lambda words: words[0])
def test_data_of_somebody_elses_run_wait_for_a_person(arguments, text, named, sesurgery, folder):
    run = made(text)
    of_somebody_else(run / WEIGHTS)
    ended = sesurgery(*arguments)
    assert ended.code == 1
    assert f"error[SE409]: runs/x/weights.safetensors was not made here by you, and its spec runs {named}" in ended.err
    assert not RAN.exists()
    assert "somebodys_code" not in sys.modules


@pytest.mark.parametrize("text", [DATA, PIPE], ids=["dataset: python", "dataset: webdataset"])
def test_with_trust_the_commands_of_its_data_run(text, sesurgery, folder):
    of_somebody_else(made(text) / WEIGHTS)
    ended = sesurgery("evaluate", "runs/x", "--trust")
    # Neither gives any data: the attack is all that they do.
    assert (ended.code, RAN.exists()) == (1, True), ended.err
    assert "error[SE5" in ended.err


def test_with_trust_it_runs(sesurgery, folder):
    of_somebody_else(made(NET) / WEIGHTS)
    ended = sesurgery("evaluate", "runs/x", "--trust")
    assert ended.code == 0, ended.err
    assert RAN.exists()


def test_trust_holds_for_one_command(sesurgery, folder):
    of_somebody_else(made(NET) / WEIGHTS)
    assert sesurgery("evaluate", "runs/x", "--trust").code == 0
    forget()
    assert sesurgery("evaluate", "runs/x").code == 1
    assert not RAN.exists()


@pytest.mark.parametrize(
    ("lines", "code"),
    [("# mine\n{folder}\n", 0), ("{folder}/runs # all of them\n", 0), ("{folder}/run\n", 1), ("runs\n.\n", 1), ("", 1)],
    ids=["the folder", "one above", "a name that begins so", "relative", "nothing"],
)
def test_a_folder_that_the_user_lists_is_trusted(lines, code, sesurgery, folder, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    (folder / "config" / "sesurgery").mkdir(parents=True)
    assert trust.trusted_file() == folder / "config" / "sesurgery" / "trusted"
    trust.trusted_file().write_text(lines.format(folder=folder.resolve()))
    of_somebody_else(made(NET) / WEIGHTS)
    assert sesurgery("evaluate", "runs/x").code == code
    assert RAN.exists() == (code == 0)


def test_what_was_made_here_needs_no_question(sesurgery, folder):
    made(NET)
    ended = sesurgery("evaluate", "runs/x")
    assert (ended.code, RAN.exists()) == (0, True), ended.err


def test_code_that_was_edited_since_runs_where_it_lay(sesurgery, folder):
    made(NET)
    with Path("somebodys_code.py").open("a") as stream:
        stream.write("# edited\n")
    assert sesurgery("evaluate", "runs/x").code == 0


def test_a_spec_with_other_code_under_the_old_seal_is_refused(sesurgery, folder):
    run = made(SPEC)
    (run / "spec.yaml").write_text(NET)
    Path("somebodys_code.py").write_text(MODULE.format(ran=str(RAN.resolve())))
    digest = pipeline.load_spec(run / "spec.yaml").model_copy(update={"name": "x"}).digest
    rewrite(run / WEIGHTS, spec_digest=digest)
    ended = sesurgery("evaluate", "runs/x")
    assert (ended.code, "error[SE409]" in ended.err) == (1, True), ended.err
    assert not RAN.exists()


def test_a_run_of_ones_own_takes_no_code_from_another_folder(sesurgery, folder, monkeypatch):
    run = made(NET).resolve()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    Path("somebodys_code.py").write_text(MODULE.format(ran=str(RAN.resolve())))
    shutil.copytree(run, "runs/x")
    ended = sesurgery("evaluate", "runs/x")
    assert ended.code == 1
    assert f"somebodys_code:make_net of its spec is now {elsewhere.resolve()}/somebodys_code.py" in ended.err
    assert not RAN.exists()


def test_a_run_that_names_no_code_needs_no_agreement_whoever_made_it(sesurgery, folder):
    model = "model: {source: timm, name: resnet10t, kwargs: {num_classes: 10, in_chans: 1}}"
    run = made(SPEC.replace(SPEC.splitlines()[1], model).replace("[1, 8, 8]", "[1, 32, 32]"))
    of_somebody_else(run / WEIGHTS)
    ended = sesurgery("evaluate", "runs/x")
    assert ended.code == 0, ended.err


ODD = [
    {"sha256": 5},
    {"details": {"engine": {"backend": {}, "batch": {"min": "1", "opt": 1, "max": 1}, "shapes": []}}},
    {"details": {"run": ["runs/tiny"]}},
    {"details": {"engine": {"backend": {"backend": "onnxruntime", "provider": "os"}, "batch": {}, "shapes": []}}},
    {"beside": [{"path": "../../somewhere", "sha256": "0" * 64}]},
    {"beside": [{"path": "/etc/passwd", "sha256": "0" * 64}]},
]


@pytest.mark.parametrize("change", ODD, ids=str)
@pytest.mark.parametrize("verb", ["verify", "package"])
def test_a_manifest_of_other_types_is_one_clear_error(verb, change, sesurgery, here):
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    manifest = manifest_of(engine)
    manifest |= {**change, "details": {**manifest["details"], **change.get("details", {})}}
    Path(f"{engine}.manifest.json").write_text(json.dumps(manifest))
    more = ["--triton", "repository"] if verb == "package" else []
    ended = sesurgery(verb, str(engine), *more)
    assert ended.code == 1, ended.err
    assert "error[SE40" in ended.err


@pytest.mark.parametrize(
    "key", ["backend", "engine", "onnx", "precision", "convolutions", "seconds", "run", "ingredients"]
)
@pytest.mark.parametrize("verb", ["verify", "package"])
def test_a_manifest_that_lacks_a_key_is_no_defect_of_the_program(verb, key, sesurgery, here):
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    manifest = manifest_of(engine)
    del manifest["details"][key]
    Path(f"{engine}.manifest.json").write_text(json.dumps(manifest))
    more = ["--triton", "repository"] if verb == "package" else []
    ended = sesurgery(verb, str(engine), "--foreign", *more)
    assert ended.code in (0, 1), ended.err
    assert "internal error" not in ended.err


@pytest.mark.parametrize("verb", ["verify", "bench", "predict", "package"])
def test_machine_code_of_somebody_else_is_not_loaded(verb, sesurgery, here, monkeypatch):
    monkeypatch.setattr(Inductor, "load", lambda *_: RAN.touch())
    source = Path("engines/tiny.onnxruntime.fp32.onnx")
    engine = Path("engines/tiny.inductor.fp32.pt2")
    engine.write_bytes(b"a shared library")
    details = manifest_of(source)["details"] | {"backend": "inductor"}
    details["engine"]["backend"] = {"backend": "inductor", "target": "cpu", "autotune": False}
    made = EngineDetails.model_validate_json(json.dumps(details))
    describe(engine, Provenance(EngineManifest, "tiny", "sesurgery build-engine", details=made))
    of_somebody_else(engine)
    more = {"predict": ["x.png"], "package": ["--triton", "repository"]}.get(verb, [])
    ended = sesurgery(verb, str(engine), "--foreign", *more)
    assert ended.code == 1
    assert "error[SE409]" in ended.err
    assert "an engine of inductor is loaded and run as it is" in ended.err
    assert not RAN.exists()


def test_an_engine_of_somebody_else_writes_results_below_the_current_folder_alone(sesurgery, here):
    engine = Path("engines/tiny.onnxruntime.fp32.onnx")
    shutil.copytree("runs/tiny", here.parent / "victim")
    for place in ("../../victim", str(here.parent / "victim")):
        rewrite(engine, details={"run": place})
        ended = sesurgery("verify", str(engine))
        assert ended.code == 1
        assert "error[SE408]: the run of engines/tiny.onnxruntime.fp32.onnx would lie outside ./" in ended.err
    before = sorted(path.name for path in Path("runs/tiny/reports").iterdir())
    assert sorted(path.name for path in (here.parent / "victim" / "reports").iterdir()) == before


class Bomb:
    def __reduce__(self):
        return Path.touch, (RAN.resolve(),)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize(
    "kwargs",
    [
        "{checkpoint_path: evil.pth}",
        "{pretrained: true, pretrained_cfg: {file: evil.pth}}",
        "{pretrained_cfg_overlay: {file: evil.pth}}",
        "{cache_dir: .}",
        "{weights: DEFAULT}",
        "{weights_backbone: DEFAULT}",
    ],
)
def test_a_keyword_that_loads_a_file_is_withheld(source, kwargs, sesurgery, folder):
    Path("evil.pth").write_bytes(pickle.dumps(Bomb()))
    model = f"model: {{source: {source}, name: resnet18, kwargs: {kwargs}}}"
    Path("x.yaml").write_text(SPEC.replace(SPEC.splitlines()[1], model))
    ended = sesurgery("plan", "x.yaml")
    assert ended.code == 1
    assert "error[SE109]" in ended.err
    assert "use 'checkpoint' for a file of weights" in ended.err
    assert not RAN.exists()


@pytest.mark.parametrize("name", ["hf-hub:net", "hf-hub:../../evil", "local-dir:evil"])
def test_a_name_of_timm_that_is_an_address_is_unknown(name, sesurgery, folder):
    model = f'model: {{source: timm, name: "{name}"}}'
    Path("x.yaml").write_text(SPEC.replace(SPEC.splitlines()[1], model))
    ended = sesurgery("plan", "x.yaml")
    assert (ended.code, "error[SE301]" in ended.err) == (1, True)


@pytest.mark.parametrize("file", ["evil.pth", "evil.safetensors"])
def test_a_pickle_as_checkpoint_runs_nothing(file, sesurgery, folder):
    Path(file).write_bytes(pickle.dumps(Bomb()))
    Path("x.yaml").write_text(SPEC.replace("kwargs: {depth", f"checkpoint: {file}, kwargs: {{depth"))
    ended = sesurgery("plan", "x.yaml")
    assert (ended.code, "error[SE401]" in ended.err) == (1, True), ended.err
    assert not RAN.exists()


def test_a_pickle_as_training_checkpoint_or_samples_runs_nothing(sesurgery, here):
    Path("runs/tiny/train").mkdir(exist_ok=True)
    Path("runs/tiny/train/last.ckpt").write_bytes(pickle.dumps(Bomb()))
    ended = sesurgery("train", "runs/tiny", "--resume")
    assert ended.code == 1, ended.err
    Path("evil.npy").write_bytes(pickle.dumps(Bomb()))
    ended = sesurgery("build-engine", "export/tiny.onnx", "--int8", "--calibration", "evil.npy")
    assert (ended.code, "error[SE606]" in ended.err) == (1, True), ended.err
    assert not RAN.exists()


def test_code_of_a_spec_that_the_user_names_is_said_on_the_console(sesurgery, folder):
    Path("x.yaml").write_text(NET)
    Path("somebodys_code.py").write_text(MODULE.format(ran=str(RAN.resolve())))
    ended = sesurgery("plan", "x.yaml")
    assert ended.code == 0, ended.err
    assert "x.yaml runs your code: somebodys_code:make_net\n" in ended.err
    assert RAN.exists()


def test_check_imports_no_code_of_a_spec(sesurgery, folder):
    Path("x.yaml").write_text(NET)
    Path("somebodys_code.py").write_text(MODULE.format(ran=str(RAN.resolve())))
    assert sesurgery("check", "x.yaml").code == 0
    assert not RAN.exists()
