"""The recipes of CONTRIBUTING.md, followed to the letter: each file is put into the package, listed and used."""

import functools
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from sesurgery import pipeline
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Backend, Capability
from sesurgery.blocks import BLOCKS
from sesurgery.catalog import Catalog
from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph import GraphView
from sesurgery.lowering import PASSES
from sesurgery.lowering.base import run
from sesurgery.networks import checkpoint
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.pipeline import Workspace
from sesurgery.placements import PLACEMENTS
from sesurgery.placements.base import Match, Miss
from sesurgery.spec.schema import json_schema
from sesurgery.training.data import DATASETS

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
RECIPES = dict(
    re.findall(r"^`(sesurgery/[\w/]+\.py)`:\n\n(?:<!-- .*? -->\n)?```python\n(.*?)```", PAGE.read_text(), re.M | re.S)
)
CATALOGS: dict[str, Catalog[Any]] = {
    "block": BLOCKS,
    "placement": PLACEMENTS,
    "pass": PASSES,
    "backend": BACKENDS,
    "dataset": DATASETS,
}
FOLDERS = {catalog.package.replace(".", "/"): kind for kind, catalog in CATALOGS.items()}


class Recipe:
    """A recipe's file: its kind, its name in a spec, and its text."""

    def __init__(self, kind: str) -> None:
        ((self.path, self.text),) = [
            (Path(path), text) for path, text in RECIPES.items() if FOLDERS.get(str(Path(path).parent)) == kind
        ]
        self.kind, self.name, self.catalog = kind, self.path.stem, CATALOGS[kind]


def forget() -> None:
    """Let the catalogs look again at what there is."""
    for method in vars(Catalog).values():
        if isinstance(method, functools._lru_cache_wrapper):
            method.cache_clear()


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put a recipe's file into its package as if it lay in the package's folder, for the time of one test."""
    followed: list[Recipe] = []

    def put(kind: str) -> Recipe:
        recipe = Recipe(kind)
        assert recipe.name not in recipe.catalog.names(), "the package has a file of that name: rename the recipe's"
        package = importlib.import_module(recipe.catalog.package)
        folder = tmp_path / recipe.catalog.package
        folder.mkdir()
        (folder / recipe.path.name).write_text(recipe.text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        forget()
        followed.append(recipe)
        return recipe

    yield put
    for recipe in followed:
        sys.modules.pop(f"{recipe.catalog.package}.{recipe.name}", None)
        vars(sys.modules[recipe.catalog.package]).pop(recipe.name, None)
    monkeypatch.undo()
    forget()


def spec_with(**keys: Any) -> dict[str, Any]:
    rule = {"insert": keys.pop("insert", "se"), "at": keys.pop("at", "residual")}
    small = {"source": "python", "name": "sesurgery.networks.cifar_resnet:CifarResNet", "kwargs": {"depth": 8}}
    return {"version": 1, "model": small, "input": {"shape": [3, 32, 32]}, "surgery": [rule], **keys}


def operate(spec: dict[str, Any], folder: Path) -> tuple[list[str], nn.Module, nn.Module]:
    """The sites' keys, the network without blocks, and the one that `sesurgery apply` has written a run of."""
    file = folder / "net.yaml"
    file.write_text(json.dumps(spec))
    done = pipeline.apply(pipeline.load_spec(file), Workspace(folder), file.as_posix())
    read = checkpoint.read(done.folder, pipeline.catalogs())
    return [site.key for site in read.plan.sites], done.planned.network.module.eval(), read.network.eval()


def test_there_is_one_recipe_of_each_kind() -> None:
    assert sorted(FOLDERS[str(Path(path).parent)] for path in RECIPES) == sorted(CATALOGS)


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_recipe_is_listed_under_its_file_name(kind: str, follow: Any) -> None:
    recipe = follow(kind)
    assert recipe.name in recipe.catalog.names()
    assert issubclass(recipe.catalog.load(recipe.name), recipe.catalog.base)
    assert recipe.catalog.load(recipe.name).__doc__


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_recipe_is_gone_after_its_test(kind: str) -> None:
    assert Recipe(kind).name not in CATALOGS[kind].names()


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_recipe_passes_the_projects_format_and_lint(kind: str) -> None:
    recipe = Recipe(kind)
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(recipe.path), "-"],
            cwd=PAGE.parent,
            input=recipe.text,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["block", "placement"])
def test_a_recipes_options_are_in_the_schema(kind: str, follow: Any) -> None:
    recipe = follow(kind)
    rule = json_schema(pipeline.catalogs())["$defs"]["InsertRule"]["properties"]
    choices = rule["insert" if kind == "block" else "at"]["anyOf"]
    assert recipe.name in [choice.get("title") for choice in choices]


def test_the_blocks_examples_keep_the_shape_and_learn(follow: Any) -> None:
    recipe = follow("block")
    examples = recipe.catalog.examples(recipe.name)
    assert examples
    for block in examples:
        module = block.build(16)
        x = torch.randn(2, 16, 6, 5, generator=torch.Generator().manual_seed(0))
        y = module(x)
        assert y.shape == x.shape
        (y**2).sum().backward()
        assert all(part.grad is not None and part.grad.any() for part in module.parameters())


def test_the_block_works_from_a_spec(follow: Any, tmp_path: Path) -> None:
    follow("block")
    keys, before, after = operate(spec_with(insert={"block": "layer_scale", "start": 1.0}), tmp_path)
    assert keys == ["layer_scale/layer1.0[0]", "layer_scale/layer2.0[0]", "layer_scale/layer3.0[0]"]
    assert set(after.state_dict()) - set(before.state_dict()) == {
        f"layer{stage}.0.layer_scale.scale" for stage in (1, 2, 3)
    }
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # As the recipe says of `start: 1.0`: insertion leaves the function as it was.
    assert torch.equal(before(image), after(image))


def test_the_placements_examples_hold(follow: Any) -> None:
    recipe = follow("placement")
    examples = recipe.catalog.examples(recipe.name)
    assert examples
    for example in examples:
        found = list(example.placement.select(GraphView.parse(example.graph)))
        matches = {item.value.name: tuple(use.user for use in item.uses) for item in found if isinstance(item, Match)}
        misses = [item.text for item in found if isinstance(item, Miss)]
        assert matches == dict(example.matches)
        assert len(misses) == len(example.misses)
        assert all(part in why for part, why in zip(example.misses, misses, strict=True))


def test_the_placement_works_from_a_spec(follow: Any, tmp_path: Path) -> None:
    follow("placement")
    keys, _, _ = operate(spec_with(at={"placement": "downsampling", "min_stride": 2}), tmp_path)
    assert keys == [
        "se/layer2.0.downsample.0[0]",
        "se/layer2.0.conv1[0]",
        "se/layer3.0.downsample.0[0]",
        "se/layer3.0.conv1[0]",
    ]


def test_the_passs_examples_hold(follow: Any) -> None:
    recipe = follow("pass")
    examples = recipe.catalog.examples(recipe.name)
    assert examples
    for example in examples:
        example.check()


def test_the_pass_keeps_the_function(follow: Any) -> None:
    recipe = follow("pass")
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N,4] x) => (float[N,4] y)'
        "{ a = Relu(x)\n b = Relu(a)\n c = Relu(b)\n y = Add(c, a) }"
    )
    lowered = run(model, [recipe.catalog.load(recipe.name)()], verify=True).model
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    (before,), (after,) = (onnx.reference.ReferenceEvaluator(each).run(None, {"x": x}) for each in (model, lowered))
    assert np.array_equal(before, after)
    assert [node.op_type for node in lowered.graph.node] == ["Relu", "Add"]


def test_the_pass_works_from_the_command_line(follow: Any, tmp_path: Path) -> None:
    recipe = follow("pass")
    text = (
        '<ir_version: 10, opset_import: ["": 20]> g (float[N,4] x) => (float[N,4] y)'
        "{ a = Relu(x)\n b = Relu(a)\n c = Sigmoid(b)\n y = Add(c, b) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    done = pipeline.lower(
        pipeline.LowerRequest(tmp_path / "net.onnx", tmp_path / "out.onnx", "onnxruntime", (recipe.name,))
    )
    assert [(edit.where, edit.why, edit.changed) for edit in done.edits[recipe.name]] == [
        ("b", "its readers read 'a' now", True)
    ]
    # Verified as the command verifies: outputs were compared, and the pass changes no bit.
    assert done.difference == 0
    written = onnx.load(tmp_path / "out.onnx")
    assert [node.op_type for node in written.graph.node] == ["Relu", "Sigmoid", "Add"]


def test_the_backend_is_one_that_a_spec_may_name(follow: Any) -> None:
    recipe = follow("backend")
    spec = pipeline.load_spec(spec_with(engines=[{"backend": recipe.name, "precision": "fp32"}]))
    assert spec.engines[0].backend.name == "reference"
    backend: Backend = recipe.catalog.load(recipe.name)()
    assert isinstance(backend.probe(), Capability)


@pytest.mark.slow
def test_the_backend_builds_an_engine_that_answers_like_the_network(follow: Any, tmp_path: Path) -> None:
    recipe = follow("backend")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CifarResNet(8).eval()
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        network, (image,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
    )
    onnx.save(program.model_proto, tmp_path / "net.onnx")
    built = pipeline.build_engine(
        pipeline.BuildRequest(tmp_path / "net.onnx", pipeline.engine({"backend": recipe.name}), Workspace(tmp_path))
    )
    assert built.path.name == "net.reference.fp32.onnx"
    assert set(built.report.convolutions) == {"fp32"}
    with recipe.catalog.load(recipe.name)().load(built.path) as runner:
        feeds = {runner.inputs[0].name: image.numpy()}
        (answer,) = runner.infer(feeds).values()
        assert np.abs(answer - network(image).detach().numpy()).max() < 1e-4
        assert (runner.time(feeds, 2) > 0).all()


def test_the_backends_engine_passes_verify(follow: Any, files: Path) -> None:
    recipe = follow("backend")
    built = pipeline.build_engine(
        pipeline.BuildRequest(files / "net.onnx", pipeline.engine({"backend": recipe.name}), Workspace(files))
    )
    found = pipeline.verify_file(pipeline.FileVerifyRequest(built.path, Workspace(files)))
    assert found.parity.entries
    assert found.failures == ()


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """What data/mnist.npz holds, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    draw = np.random.default_rng(0)
    arrays = {f"x_{part}": draw.integers(0, 256, (12, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(12, dtype=np.uint8) % 3 for part in ("train", "test")}
    np.savez("data/mnist.npz", **arrays)
    return arrays


def test_the_data_set_is_loaded_from_a_spec(follow: Any, images: dict[str, np.ndarray]) -> None:
    follow("dataset")
    spec = pipeline.load_spec(spec_with(train={"data": {"dataset": "npz", "file": "data/mnist.npz"}}))
    data = spec.train.data.options.load((1, 8, 8))
    assert data.classes == ("0", "1", "2")
    (batch, labels), *_ = data.held_out.batches(5)
    assert batch.shape == (5, 1, 8, 8)
    assert np.allclose(batch.numpy()[:, 0] * 255, images["x_test"][:5])
    assert labels.tolist() == [0, 1, 2, 0, 1]


def test_the_data_set_trains_a_network(follow: Any, images: dict[str, np.ndarray]) -> None:
    """One optimiser step, and an evaluation, by the command's own way."""
    follow("dataset")
    recipe = {"data": {"dataset": "npz", "file": "data/mnist.npz"}, "epochs": 1, "batch_size": 12, "threads": 1}
    spec = spec_with(train=recipe, input={"shape": [1, 8, 8]}, name="npz")
    spec["model"]["kwargs"] |= {"in_channels": 1, "num_classes": 3}
    run = pipeline.apply(pipeline.load_spec(spec), Workspace(), "npz.yaml").folder
    before = checkpoint.read(run, pipeline.catalogs()).network.state_dict()
    trained = pipeline.train(pipeline.TrainRequest(run)).result
    after = checkpoint.read(run, pipeline.catalogs()).network.state_dict()
    assert [np.isfinite(epoch.held_out_loss) for epoch in trained.epochs] == [True]
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])


@pytest.mark.parametrize(("file", "code"), [("data/none.npz", "SE503"), ("data/mnist.npz", "SE501")])
def test_the_data_set_says_what_is_wrong(file: str, code: str, follow: Any, images: dict[str, np.ndarray]) -> None:
    recipe = follow("dataset")
    with pytest.raises(SesurgeryError, match=code):
        recipe.catalog.load(recipe.name)(file=file).load((3, 8, 8))
