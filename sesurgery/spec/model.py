"""The typed spec: frozen pydantic models whose fields are the YAML keys. What each key means stands beside it.

Plugins (blocks, placements) are not known here: the loader validates their options against the plugin's own dataclass
and the fields hold a `Ref`. So this package needs neither torch nor a list of what exists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sesurgery.artifacts import digest_text
from sesurgery.diagnostics import Span
from sesurgery.profiles import parse_profile
from sesurgery.spec.bounds import (
    MOST_CHECKED,
    MOST_ENGINES,
    MOST_RULES,
    MOST_VALUES,
    CheckedBatch,
    Repeats,
    Short,
    Size,
    Threads,
)
from sesurgery.spec.changes import changed
from sesurgery.spec.code import Factory
from sesurgery.spec.frozen import Fraction, Frozen, Positive
from sesurgery.spec.plugins import BackendField, BlockField, ExistingField, PassesField, PlacementField
from sesurgery.spec.source import Source
from sesurgery.spec.study import Range as Range
from sesurgery.spec.study import Study
from sesurgery.spec.train import Train

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Scalar = bool | int | float | str | None
Kwarg = Scalar | list[Scalar] | dict[str, Scalar]


LOADS = (
    *("pretrained", "checkpoint_path", "cache_dir", "hf_hub_id", "state_dict", "weights", "weights_backbone"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_custom_load", "pretrained_model_args"),
)
"""Keyword arguments of timm and torchvision by which a file of the caller's choice is read, in some versions as a
pickle, which runs code; and by which pretrained values come without the spec's own key for them."""


def _loads_nothing(kwargs: dict[str, Kwarg]) -> dict[str, Kwarg]:
    for key in kwargs:
        if key in LOADS:
            raise PydanticCustomError("withheld", f"{key!r} is not passed on: it loads files", {"inner": [key]})
    return kwargs


LibraryKwargs = Annotated[dict[str, Kwarg], AfterValidator(_loads_nothing)]


class TimmModel(Frozen):
    """A network of timm by its name."""

    source: Literal["timm"]
    name: str
    pretrained: bool = False
    checkpoint: str | None = Field(None, description="a local weights file, relative to the spec")
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="passed to timm.create_model")


class TorchvisionModel(Frozen):
    """A network of torchvision by its name."""

    source: Literal["torchvision"]
    name: str
    pretrained: bool = False
    checkpoint: str | None = Field(None, description="a local weights file, relative to the spec")
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="passed to torchvision.models.get_model")


class HuggingFaceModel(Frozen):
    """A network of transformers by its class, a local folder or a repository of the hub; no code beside it runs."""

    source: Literal["huggingface"]
    name: str = Field(description="a class of transformers, a folder relative to the spec, or OWNER/NAME on the hub")
    pretrained: bool = Field(False, description="load the folder's or the repository's values, from safetensors alone")
    checkpoint: str | None = Field(None, description="a local weights file, relative to the spec")
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: LibraryKwargs = Field(default_factory=dict, description="keys of the network's config")


class PythonModel(Frozen):
    """A network made by the user's own function. The named module is imported: it is code that runs."""

    source: Literal["python"]
    name: Annotated[Factory, Field(description="package.module:factory")]
    checkpoint: str | None = Field(None, description="a local weights file, relative to the spec")
    submodule: str = Field("", description="only this part of the network is changed; 'input' is then the part's")
    kwargs: dict[str, Kwarg] = Field(default_factory=dict, description="passed to the factory")


class OnnxModel(Frozen):
    """A network in an ONNX file."""

    source: Literal["onnx"]
    name: str = Field(description="path of the file, relative to the spec")


Model = Annotated[
    TimmModel | TorchvisionModel | HuggingFaceModel | PythonModel | OnnxModel, Field(discriminator="source")
]


class Input(Frozen):
    """The network's input; the batch is always dynamic."""

    shape: tuple[Size, Size, Size] = Field(description="channels, height, width")

    @field_validator("shape")
    @classmethod
    def _fits_in_memory(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if (found := math.prod(shape)) > MOST_VALUES:
            raise PydanticCustomError("range", f"a sample has at most {MOST_VALUES} values, found {found}")
        return shape


Globs = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    # One glob is a list of one. A tuple, because strict mode takes a list for one from JSON alone.
    BeforeValidator(
        lambda given: (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given
    ),
]


RuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$"), Short]


class Filters(Frozen):
    """Which of a rule's candidates are taken; all filters must agree."""

    name: RuleName | None = Field(
        None, description="names the rule's blocks in keys and state dicts; default: the block's name"
    )
    stages: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = Field(
        None, description="stages to take, numbered by resolution in order of first appearance"
    )
    within: Globs | None = Field(None, description="globs over scopes: only these")
    except_: Globs | None = Field(None, alias="except", description="globs over scopes: not these")
    min_channels: Positive | None = Field(None, description="sites with fewer channels are turned down")
    max_channels: Positive | None = Field(None, description="sites with more channels are turned down")
    min_size: Positive | None = Field(None, description="maps smaller than this in height or width are turned down")
    max_size: Positive | None = Field(None, description="maps larger than this in height or width are turned down")
    pick: Literal["first", "last"] | None = Field(None, description="of each stage, only its first or last site")
    every: Positive | None = Field(None, description="every n-th of what is left, beginning with the first")
    expect: Annotated[int, Field(ge=0)] | None = Field(None, description="any other number of sites is an error")


class InsertRule(Filters):
    """Blocks that are put in: what, and where."""

    insert: BlockField = Field(description="the block: its name, or a mapping with `block:` and its options")
    at: PlacementField = Field(description="the placement: its name, or a mapping with `placement:` and its options")


class RemoveRule(Filters):
    """Existing channel gates that are taken out, found by their dataflow, whoever wrote them."""

    remove: ExistingField = Field(description="what is taken out: se, effective_se or any")


class ReplaceRule(Filters):
    """Existing channel gates that give way to a block in the same places."""

    replace: ExistingField = Field(description="what is taken out: se, effective_se or any")
    insert: BlockField = Field(description="the block that takes its place")


def _rule_kind(given: object) -> str:
    # What is no mapping is judged as the kind that most rules are.
    keys = given if isinstance(given, dict) else getattr(given, "__dict__", {})
    return "RemoveRule" if "remove" in keys else "ReplaceRule" if "replace" in keys else "InsertRule"


Rule = InsertRule | RemoveRule | ReplaceRule
RuleField = Annotated[
    Annotated[InsertRule, Tag("InsertRule")]
    | Annotated[RemoveRule, Tag("RemoveRule")]
    | Annotated[ReplaceRule, Tag("ReplaceRule")],
    Discriminator(_rule_kind),
]


class Export(Frozen):
    """How the network becomes an ONNX file."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    check_batches: Annotated[tuple[CheckedBatch, ...], Field(min_length=1, max_length=64)] = Field(
        (1, 3), description="batch sizes at which the file is compared with the model"
    )
    max_abs: Annotated[float, Field(gt=0)] = Field(
        1e-4, description="largest difference from the model that is accepted"
    )
    lowering: PassesField = Field(
        None, description="lowering passes before an engine is built, or none; default: those of its backend"
    )


class Batch(Frozen):
    """Batch sizes an engine takes: smallest, the one it is tuned for, largest."""

    min: Size = 1
    opt: Size = 1
    max: Size = 64

    @model_validator(mode="after")
    def _in_order(self) -> Batch:
        if not self.min <= self.opt <= self.max:
            raise PydanticCustomError(
                "excluding", f"min <= opt <= max does not hold for {self.min}, {self.opt}, {self.max}"
            )
        return self


class Calibration(Frozen):
    """The samples on which ranges of activations are found: those that int8 keeps, and those too large for fp16."""

    samples: Repeats = Field(256, description="samples of the training data that are looked at, always the same ones")
    file: str | None = Field(
        None, description="a .npy or .npz file of samples instead, by input name, relative to the current folder"
    )
    method: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="the range of a tensor: all of it, the one that loses least, or 99.99 % of its values"
    )
    weights: Literal[7, 8, "auto"] = Field(
        "auto", description="bits of int8 weights: 7 are right on every processor, 8 where none adds pairs in 16 bits"
    )


def _profiles(shapes: tuple[str, ...]) -> tuple[str, ...]:
    for text in shapes:
        try:
            parse_profile(text)
        except ValueError as error:
            raise PydanticCustomError("range", str(error)) from None
    return shapes


class Engine(Frozen):
    """An engine to build."""

    backend: BackendField = Field(
        default="onnxruntime",
        validate_default=True,
        description="the backend: its name, or a mapping with `backend:` and its options",
    )
    precision: Precision = "fp32"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$"), Short] | None = Field(
        None, description="part of the file's name, where two engines share backend and precision"
    )
    batch: Batch = Field(default_factory=Batch)
    shapes: Annotated[tuple[str, ...], AfterValidator(_profiles)] = Field(
        (), description="profiles beyond the batch, each as `input=1,8,32x3x224x224`: one size or three a dimension"
    )
    calibration: Calibration = Field(default_factory=Calibration)
    io: Literal["keep", "convert"] = Field(
        "keep", description="whether inputs and outputs stay fp32 in fp16 and bf16 engines, or are converted as well"
    )
    converter: Literal["sesurgery", "autocast"] = Field(
        "sesurgery", description="who writes fp16 and bf16: this program, or AutoCast of nvidia-modelopt"
    )


class Tolerance(Frozen):
    """How far an engine may be from the trained model; what is left out is not asked."""

    max_abs: Annotated[float, Field(gt=0)] | None = Field(None, description="largest absolute difference of a logit")
    mean_abs: Annotated[float, Field(gt=0)] | None = Field(None, description="mean absolute difference of the logits")
    min_cosine: Fraction | None = Field(None, description="smallest cosine between the logits of one sample")
    min_agreement: Fraction | None = Field(None, description="share of samples on which both give the same class")
    max_top1_drop: Fraction | None = Field(None, description="largest loss of top-1 against the trained model")


class Parity(Frozen):
    """The tolerance of each precision, always named, never a default that nobody looks at."""

    fp32: Tolerance = Field(default_factory=lambda: Tolerance(max_abs=1e-3, min_agreement=1.0))
    fp16: Tolerance = Field(default_factory=lambda: Tolerance(max_abs=0.1, min_agreement=0.99, max_top1_drop=0.01))
    bf16: Tolerance = Field(default_factory=lambda: Tolerance(max_abs=0.5, min_agreement=0.98, max_top1_drop=0.01))
    int8: Tolerance = Field(default_factory=lambda: Tolerance(min_agreement=0.97, max_top1_drop=0.01))
    batches: Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)] = Field(
        (1, 32), description="batch sizes at which the engine is compared, over all held-out samples"
    )


class Latency(Frozen):
    """How engines are timed: in alternating rounds, loaded afresh several times in random order."""

    batch: Size = 1
    rounds: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        60, description="alternating rounds of a process, shared out among the placements"
    )
    repeats: Repeats = Field(10, description="runs an engine in one round")
    placements: Annotated[int, Field(ge=4, le=10_000)] = Field(
        12,
        description="how often a process loads the engines afresh, in random order and its reverse",
    )
    processes: Annotated[int, Field(gt=0, le=1000)] = Field(
        1, description="fresh processes that repeat all of it; the interval is over them"
    )
    warmup_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.5
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    threads: Threads | None = Field(None, description="CPU threads; default: all")


CHANGED = " (changed)"
"""What stands behind the file's name in an error in a spec that was changed."""


class Spec(Frozen):
    """A whole spec: where channel attention goes in a backbone, what is inserted, and what follows."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$"), Short] = Field(
        "", description="names the artefacts; default: the file's stem", validate_default=False
    )
    model: Model
    input: Input
    surgery: Annotated[tuple[RuleField, ...], Field(min_length=1, max_length=MOST_RULES)]
    train: Train = Field(default_factory=Train)
    export: Export = Field(default_factory=Export)
    # The loader puts one engine with all defaults here: defaults that name a plugin need the catalogs.
    engines: Annotated[tuple[Engine, ...], Field(min_length=1, max_length=MOST_ENGINES)] = ()
    parity: Parity = Field(default_factory=Parity)
    latency: Latency = Field(default_factory=Latency)
    study: Study | None = None

    _source: Source | None = PrivateAttr(default=None)
    _written: dict[str, Any] | None = PrivateAttr(default=None)
    _load: Callable[[dict[str, Any], str], Spec] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _engines_have_their_own_files(self) -> Spec:
        seen: set[tuple[object, ...]] = set()
        for engine in self.engines:
            who = (engine.backend.name, engine.precision, engine.name)
            if who in seen:
                text = f"two engines would be one file: {engine.backend.name} {engine.precision}"
                raise PydanticCustomError("excluding", f"{text}; tell them apart by 'name:'")
            seen.add(who)
        return self

    @model_validator(mode="after")
    def _checks_fit_in_memory(self) -> Spec:
        most = max(1, MOST_CHECKED // math.prod(self.input.shape))
        if (found := max(self.export.check_batches)) > most:
            shape = "x".join(map(str, self.input.shape))
            text = f"'export: check_batches' of an input of {shape} are at most {most}, found {found}"
            raise PydanticCustomError("excluding", text, {"inner": ["export", "check_batches"]})
        return self

    def remember(
        self, source: Source | None, written: dict[str, Any], load: Callable[[dict[str, Any], str], Spec]
    ) -> None:
        """Keep the file's marks, so that later stages can point at it, and the data it holds.

        `load` makes a spec of other data: it is given the data and the name of the file that they are from.
        """
        self._source, self._written, self._load = source, written, load

    def with_(self, changes: Mapping[str, object]) -> Spec:
        """The spec with other values at some places: `spec.with_({"surgery[0].insert.reduction": 8})`.

        It is validated as a file is, and its text (YAML written anew), digest and marks are its own. Relative paths
        start from the same folder. Raises SpecError with every mistake, a path that leads nowhere among them.
        """
        if self._load is None:
            raise TypeError("a spec is changed with the plugins that it was loaded with: use sesurgery.load_spec")
        written = self.model_dump(mode="json", by_alias=True) if self._written is None else self._written
        file = self._source.file if self._source else "spec"
        # The name is the file's where none is written, and stays.
        named = {"version": self.version, "name": self.name, **written}
        return self._load(changed(named, self, changes), file if file.endswith(CHANGED) else file + CHANGED)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Spec:
        """pydantic's copy, which validates nothing. One that says something else has no text of a file."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied._written = None
        return copied

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        """Where the value at `place` (or its key) stands in the file; None for a spec that came from no file."""
        return self._source.span(place, key=key) if self._source else None

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the spec start from."""
        return Path(self._source.file).parent if self._source else Path()

    def text(self) -> str:
        """The spec as YAML: the file's own text, comments and all, or JSON (which is YAML) where there was no file."""
        if self._source is None or self._written is None:
            return self.model_dump_json(by_alias=True, indent=2) + "\n"
        return self._source.text

    @property
    def digest(self) -> str:
        """SHA-256 of what the spec says, however it was written."""
        return digest_text(self.model_dump_json(by_alias=True))

    def rule_names(self) -> tuple[str, ...]:
        """The rules' names: as given, else the block's name; a second rule of the same name becomes `se_2`."""
        names: list[str] = []
        for rule in self.surgery:
            kind = f"remove_{rule.remove}" if isinstance(rule, RemoveRule) else rule.insert.name
            stem = rule.name or re.sub(r"\W", "_", kind)
            name, count = stem, 1
            while name in names:
                count += 1
                name = f"{stem}_{count}"
            names.append(name)
        return tuple(names)
