"""The verb `init`: a first spec for a network, which works as it is and explains what else could stand in it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import yaml

from sesurgery import planner
from sesurgery.artifacts import write_text
from sesurgery.diagnostics import fail
from sesurgery.graph import Shape
from sesurgery.pipeline.inspect import NamedNetwork, inspection_of, names_spec, offer, open_named, structural
from sesurgery.pipeline.specs import load_spec
from sesurgery.placements import PLACEMENTS
from sesurgery.planner import Plan
from sesurgery.planner.resolve import GATED
from sesurgery.reports.text.inspection import Inspection
from sesurgery.spec import zoo
from sesurgery.workspace.targets import claim

WIDE = 128
"""A block of reduction 16 on fewer channels has a hidden width under 8."""

USUAL = "num_classes"
"""How timm, torchvision and most functions of one's own call the number of classes."""
CLASSES = {"huggingface": "num_labels", "ultralytics": "nc"}
"""How other libraries call it."""


@dataclass(frozen=True)
class FirstSpec:
    """A first spec, and what it does; `path` is None if it was not written."""

    text: str
    path: Path | None
    plan: Plan
    choice: str

    def summary(self) -> str:
        """One line: where the blocks go, and how many."""
        return f"{self.choice}, {len(self.plan.sites)} sites"


@dataclass(frozen=True)
class _Choice:
    """The rule that suits a network: at the placement `at`, or replacing the network's own gates where that is None."""

    at: str | None
    written: str
    sites: tuple[tuple[str, int | None, int], ...]
    """Scope, stage and channels of every site."""


def init(model: str, out: Path | None = None, *, shape: Shape | None = None, force: bool = False) -> FirstSpec:
    """Write a first spec for a network to `out`, by default specs/NAME.yaml; `-` writes no file.

    Raises SE405 if the file is there already and `force` does not say to replace it, SE201 if no block fits.
    """
    if names_spec(model):
        raise fail("SE301", f"{model} is a spec already", "name a network, as in timm:resnet50")
    published = zoo.packaged(model)
    path = out or Path("specs") / f"{published.stem if published else _stem(model)}.yaml"
    if str(path) != "-":
        # Users edit specs: an existing one is never replaced without --force.
        needs = _files(Path(model))
        claim(path, needs=needs, ours=lambda _: False, force=force)
    if published:
        return _published(published, path)
    named = open_named(model, shape)
    inspection = inspection_of(named, structural())
    choice = _choose(named, inspection)
    text = _text(named, inspection, choice, path)
    made = planner.plan(load_spec(yaml.safe_load(text)), named.network.view)
    told = f"at: {choice.at}" if choice.at else choice.written
    if str(path) == "-":
        return FirstSpec(text, None, made, told)
    write_text(path, text)
    return FirstSpec(text, path, made, told)


def _published(spec: Path, path: Path) -> FirstSpec:
    """A copy of a spec of the zoo, without the line that says where its schema is."""
    text = "".join(line for line in spec.read_text().splitlines(True) if "yaml-language-server" not in line)
    made = planner.plan(load_spec(spec), open_named(spec.as_posix()).network.view)
    if str(path) == "-":
        return FirstSpec(text, None, made, "as published")
    write_text(path, text)
    return FirstSpec(text, path, made, "as published")


def _stem(model: str) -> str:
    name = Path(model).stem if Path(model).suffix == ".onnx" else model.rpartition(":")[2].removesuffix(".yaml")
    return re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^\w.-]", "_", name)) or "spec"


def _choose(named: NamedNetwork, inspection: Inspection) -> _Choice:
    """Residual units, else multi-branch modules, else convolutions; or the network's gates, if they are everywhere."""
    offers = {item.placement: item for item in inspection.offers}
    for at in ("residual", "concat", "conv"):
        found = offers[at]
        if not found.sites and any(item.kind == GATED for item in found.rejected):
            break
        written = at
        # Where both kinds occur, spatial convolutions are chosen over pointwise ones.
        if at == "conv":
            spatial = offer(named.network.view, at, spatial_only=True)
            if 0 < len(spatial.sites) < len(found.sites):
                found, written = spatial, "{placement: conv, spatial_only: true}"
        if found.sites:
            return _Choice(at, f"at: {written}", tuple((x.scope, x.stage, x.channels) for x in found.sites))
    if inspection.gates:
        kind = _kind(inspection)
        sites = tuple((x.scope, x.stage, x.channels) for x in inspection.gates if kind in (x.kind, "any"))
        return _Choice(None, f"replace: {kind}", sites)
    text = f"{inspection.model} offers no place for a block: it has no feature map of channels, height and width"
    raise fail("SE201", text, "name a convolutional network")


def _files(model: Path) -> tuple[Path, ...]:
    """The files of a network given as an ONNX file; empty for any other network."""
    if model.suffix != ".onnx" or not model.is_file():
        return ()
    from sesurgery.onnxgraph import io as onnx_io

    return onnx_io.files(model)


def _kind(inspection: Inspection) -> str:
    """The most common kind of the network's own gates."""
    return Counter(gate.kind for gate in inspection.gates).most_common(1)[0][0]


def _text(named: NamedNetwork, inspection: Inspection, choice: _Choice, path: Path) -> str:
    model, shape = named.model, inspection.shape
    stages = [f"{number} = {'x'.join(map(str, size))}" for number, size in enumerate(inspection.stages, start=1)]
    lines: list[tuple[str, str]] = []
    if (path.parent / "schema.json").is_file():
        lines.append(("# yaml-language-server: $schema=schema.json", ""))
    lines += [
        (f"# Squeeze-and-Excitation in {model.name}, begun with `sesurgery init {named.name}`.", ""),
        ("# It works as it is. What is commented out shows what else there is; docs/spec.md has all of it.", ""),
        ("version: 1", ""),
        *_name(named, path),
        ("model:", ""),
        (f"  source: {model.source}", ""),
        (f"  name: {_scalar(_model_name(named, path))}", ""),
        *_about_values(str(model.source)),
        ("input:", ""),
        (f"  shape: [{', '.join(map(str, shape))}]", f"channels, height, width{_guess(named)}; the batch is dynamic"),
        (f"# The stages of this network: {', '.join(stages)}.", ""),
        ("surgery:", ""),
        *_rule(choice),
        *_alternatives(inspection, choice),
        *_what_follows(str(model.source), path),
    ]
    wide = max(len(code) for code, note in lines if note) + 2
    return "\n".join(f"{code:<{wide}}# {note}" if note else code for code, note in lines) + "\n"


def _name(named: NamedNetwork, path: Path) -> list[tuple[str, str]]:
    """A name for a spec whose file name cannot name artefacts."""
    if str(path) == "-" or re.fullmatch(r"[A-Za-z0-9][\w.-]*", path.stem):
        return []
    return [(f"name: {_stem(named.name)}", "names the artefacts")]


def _model_name(named: NamedNetwork, path: Path) -> str:
    """The network's name; for a file, its path relative to the folder of the spec."""
    if named.model.source != "onnx" or str(path) == "-":
        return named.model.name
    return Path(os.path.relpath(named.model.name, path.parent)).as_posix()


def _what_follows(source: str, path: Path) -> list[tuple[str, str]]:
    if source == "onnx":
        spec = "SPEC" if str(path) == "-" else path.as_posix()
        return [
            (f"# `sesurgery apply {spec} -o OUT.onnx` writes the changed file, with blocks that are not trained.", "")
        ]
    lines: list[tuple[str, str]] = []
    if source == "ultralytics":
        told = "a classifier is trained here; a detector by Ultralytics' own trainer: docs/spec.md#source-ultralytics"
        lines.append((f"# {told}", ""))
    classes = f"`kwargs: {{{CLASSES.get(source, USUAL)}: 10}}` above"
    return [
        *lines,
        ("# train: {data: digits, epochs: 10}", f"these have 10 classes: {classes}"),
        ("# your own images: `data: {dataset: image_folder, root: photos, share: 0.2}`, photos/CLASS/*.jpg", ""),
        ("# engines:", "what `sesurgery run` builds; default: onnxruntime in fp32"),
        ("#   - {backend: onnxruntime, precision: fp32}", ""),
        ("#   - {backend: onnxruntime, precision: fp16}", "`sesurgery list backends` names the others"),
    ]


def _about_values(source: str) -> list[tuple[str, str]]:
    if source == "onnx":
        return []
    lines = [("  # checkpoint: weights.safetensors", "a local weights file, relative to this one")]
    if source in ("timm", "torchvision", "huggingface"):
        lines.insert(0, ("  # pretrained: true", f"the weights of {source}, which are downloaded"))
    given = f"# kwargs: {{{CLASSES.get(source, USUAL)}: 10}}"
    return [*lines, (f"  {given}", "passed to the function that builds the network")]


def _guess(named: NamedNetwork) -> str:
    return " (assumed: the network does not tell)" if named.network.assumed else ""


def _rule(choice: _Choice, indent: str = "  ") -> list[tuple[str, str]]:
    """The rule, with filters whose example values leave some sites."""
    channels = [item[2] for item in choice.sites]
    min_width = ", min_width: 8" if min(channels) < WIDE else ""
    hidden = "hidden width: channels / 16" + (", at least 8" if min_width else "")
    block = (f"insert: {{block: se, reduction: 16{min_width}}}", f"what; {hidden}; `sesurgery list blocks`")
    if choice.at is None:
        what = [(choice.written, "the network's own channel gates are replaced"), block]
    else:
        what = [block, (choice.written, f"where; {_about(choice.at)}")]
    scope = choice.sites[-1][0]
    within = f"{scope.rpartition('.')[0] or scope}*"
    filters = [("# max_size: 56", "only on maps up to this height and width")]
    if stages := sorted({stage for _, stage, _ in choice.sites if stage}):
        filters = [(f"# stages: [{', '.join(map(str, stages[-2:]))}]", "only at these resolutions")]
    if scope:
        filters.append((f"# within: {_scalar(within)}", "only in modules with such names; 'except' for the opposite"))
    filters.append((f"# min_channels: {median_low(channels)}", "only sites with at least so many channels"))
    body = [*what, (f"expect: {len(choice.sites)}", "any other number of sites is an error"), *filters]
    return [(f"{indent}{'- ' if index == 0 else '  '}{code}", note) for index, (code, note) in enumerate(body)]


def _alternatives(inspection: Inspection, choice: _Choice) -> list[tuple[str, str]]:
    lines = [
        (f"  # at: {item.placement}", f"{len(item.sites)} sites: {_about(item.placement)}")
        for item in inspection.offers
        if item.sites and item.placement != choice.at
    ]
    if lines:
        lead = "Other places for the rule above" if choice.at else "Beside those gates, in a rule of 'insert' and 'at'"
        lines.insert(0, (f"  # {lead}, each with its number of sites for 'expect':", ""))
    if inspection.gates and choice.at is not None:
        kind = _kind(inspection)
        sites = tuple((x.scope, x.stage, x.channels) for x in inspection.gates if kind in (x.kind, "any"))
        rule = _rule(_Choice(None, f"replace: {kind}", sites), "")[:3]
        lines.append((f"  # The network has {len(inspection.gates)} channel gates already. In their place:", ""))
        lines += [(f"  # {code}", note) for code, note in rule]
    return lines


def _about(at: str) -> str:
    """A placement's summary, as `list placements` shows it."""
    summary = PLACEMENTS.summary(at).rstrip(".")
    return summary[:1].lower() + summary[1:]


def _scalar(text: str) -> str:
    """A text as a YAML scalar, quoted where YAML could read it as something else."""
    return (
        text
        if re.fullmatch(r"[A-Za-z_][\w.-]*", text) and text.lower() not in ("null", "true", "false")
        else json.dumps(text)
    )
