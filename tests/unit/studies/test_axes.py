"""Every kind of key as an axis: each cell is the spec with that key changed and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from pydantic import JsonValue

from sesurgery import pipeline
from sesurgery.diagnostics import SpecError
from sesurgery.spec import Spec
from sesurgery.studies.cells import NO_BLOCKS, grid, trial_spec

BASE: Mapping[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"source": "timm", "name": "resnet18"},
    "input": {"shape": [3, 32, 32]},
    "surgery": [{"insert": {"block": "se", "gate": "sigmoid", "squeeze": "avg"}, "at": "residual", "stages": [1]}],
    "train": {"data": {"dataset": "mnist_5k", "train_samples": 100}, "epochs": 1, "preset": "fine_tune"},
    "engines": [{"backend": "onnxruntime", "precision": "fp32"}],
}


@dataclass(frozen=True)
class Axis:
    """An axis, the value that `BASE` has there, another one, and the part of the loaded spec that may change."""

    of: str
    path: str
    base: JsonValue
    other: JsonValue
    moves: str | None = None

    @property
    def part(self) -> str:
        return self.moves or self.path


AXES = (
    Axis("reduction", "surgery[0].insert.reduction", 16, 4),
    Axis("stages", "surgery[0].stages", [1], [2, 3]),
    Axis("placement", "surgery[0].at", "residual", "pre"),
    Axis("block", "surgery[0].insert.block", "se", "gather_excite", moves="surgery[0].insert"),
    Axis("block in whole", "surgery[0].insert", {"block": "se"}, {"block": "eca", "kernel_size": 3}),
    Axis("gate", "surgery[0].insert.gate", "sigmoid", "tanh"),
    Axis("squeeze", "surgery[0].insert.squeeze", "avg", "max"),
    Axis("recipe", "train.preset", "fine_tune", "se_paper", moves="train"),
    Axis("data share", "train.data.train_samples", 100, 50),
    Axis("backend", "engines[0].backend", "onnxruntime", "openvino"),
    Axis("precision", "engines[0].precision", "fp32", "int8"),
    Axis("model", "model.name", "resnet18", "resnet34"),
)


def leaves(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Each value of a spec by its path: `("surgery[0].at", "pre")`."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}".removeprefix("."))
    elif isinstance(node, list) and node and isinstance(node[0], Mapping):
        for number, value in enumerate(node):
            yield from leaves(value, f"{path}[{number}]")
    else:
        yield path, node


def differing(one: object, other: object) -> set[str]:
    """The paths at which two specs say something else."""
    first, second = dict(leaves(one)), dict(leaves(other))
    return {path for path in first.keys() | second.keys() if first.get(path, leaves) != second.get(path, leaves)}


def written(spec: Spec) -> Any:
    return yaml.safe_load(spec.text())


def loaded(spec: Spec) -> Any:
    return spec.model_dump(mode="json", by_alias=True)


def lies_in(path: str, part: str) -> bool:
    return path == part or path.startswith((f"{part}.", f"{part}["))


@pytest.mark.parametrize("axis", AXES, ids=[axis.of.replace(" ", "_") for axis in AXES])
def test_a_cell_differs_from_the_spec_in_the_key_of_its_axis_alone(axis: Axis) -> None:
    given = {**BASE, "surgery": [{**BASE["surgery"][0], "insert": {"block": "se"}}]} if "block" in axis.of else BASE
    spec = pipeline.load_spec({**given, "study": {"axes": {axis.path: [axis.base, axis.other]}}})
    assert spec.study is not None
    base = spec.with_({"study": None, "train.seed": 5})
    cells = grid(spec.study)
    ours = [cell for cell in cells if not cell.plain]
    assert [dict(cell.where) for cell in ours] == [{axis.path: axis.base}, {axis.path: axis.other}]
    same, other = (trial_spec(spec, cell, 5) for cell in ours)
    assert differing(loaded(same), loaded(base)) == {"name"}
    for dump in (written, loaded):
        changed = differing(dump(other), dump(base)) - {"name"}
        assert changed
        assert all(lies_in(path, axis.path if dump is written else axis.part) for path in changed), changed
    for plain in (cell for cell in cells if cell.plain):
        made = trial_spec(spec, plain, 5)
        (rule,) = written(made)["surgery"]
        assert rule == NO_BLOCKS
        changed = {path for path in differing(loaded(made), loaded(base)) if not lies_in(path, "surgery[0]")} - {"name"}
        assert all(lies_in(path, axis.part) for path in changed), changed
        assert bool(changed) == (plain.where == {axis.path: axis.other})


def test_a_value_that_does_not_go_with_the_keys_beside_it_says_what_the_axis_should_be() -> None:
    given = {**BASE, "surgery": [{"insert": {"block": "se", "reduction": 4}, "at": "residual"}]}
    with pytest.raises(SpecError) as caught:
        pipeline.load_spec({**given, "study": {"axes": {"surgery[0].insert.block": ["se", "eca"]}}})
    (told,) = caught.value.diagnostics
    assert told.message == "axis 'surgery[0].insert.block', value eca: unknown key 'reduction'"
    assert told.hint is not None
    assert "make 'surgery[0].insert' the axis, each value a mapping of all its keys, as {block: eca} is" in told.hint
    whole = [{"block": "se", "reduction": 4}, {"block": "eca"}]
    assert pipeline.load_spec({**given, "study": {"axes": {"surgery[0].insert": whole}}}).study is not None


def test_a_path_that_no_spec_has_names_the_keys_there_are() -> None:
    with pytest.raises(SpecError) as caught:
        pipeline.load_spec({**BASE, "study": {"axes": {"train.data.train_sample": [5]}}})
    (told,) = caught.value.diagnostics
    assert told.hint is not None
    assert "train_samples" in told.hint
