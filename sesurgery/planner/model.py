"""The plan: sites, removals and rejections, as data, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationInfo

from sesurgery.artifacts import digest_text, to_json
from sesurgery.blocks.base import Block
from sesurgery.catalog import Catalog, Ref
from sesurgery.graph import Shape, Use
from sesurgery.reasons import Reason
from sesurgery.spec.plugins import options_to_dict, ref_from_dict
from sesurgery.tables import aligned


def _as_block(value: Any, info: ValidationInfo) -> Ref[Block]:
    """A block from a plan's file; the validation context is the catalog."""
    if not isinstance(value, Mapping) or not isinstance(value.get("block"), str):
        raise ValueError("a mapping with 'block' is expected")
    catalog: Any = info.context
    return ref_from_dict(value, "block", catalog)


def key_of(rule: str, scope: str, ordinal: int) -> str:
    """The key of a site, the same in every form of a network: `se/layer1.0[0]`."""
    return f"{rule}/{scope}[{ordinal}]"


def ordinal_of(key: str) -> int:
    """The ordinal in a key: the number of the rule's site within its scope, from 0."""
    return int(key.rpartition("[")[2].removesuffix("]"))


Positive = Annotated[int, Field(gt=0)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*/.*\[[0-9]{1,9}\]$")]


FOR_VOLUMES = "choose the block 'se' or 'eca'"
"""What to do about a block that is unfit for a map with time."""

_CONFIG = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Site:
    """One insertion point: a block after `value`, read by exactly `uses`. `stage` is None between stages."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    key: Key
    rule: str
    scope: str
    stage: Positive | None
    channels: Positive
    height: Positive
    width: Positive
    value: str
    uses: tuple[Use, ...]
    block: Annotated[Ref[Block], PlainValidator(_as_block)]
    frames: Positive | None = None
    """The map's length in time, in a network of 3-d convolutions."""

    @property
    def shape(self) -> Shape:
        """The map's."""
        return shape_of(self)

    def build(self) -> Any:
        """A fresh module of the block for this map; raises as the block's own `build` does."""
        made = self.block.options.build(self.channels)
        if self.frames is not None:
            made.volumes = True  # type: ignore[assignment]
        return made

    @property
    def unfit(self) -> str | None:
        """Why the block cannot be put on this map, or None."""
        if self.frames is None or self.block.options.volumes:
            return None
        return f"'{self.block.name}' works on maps [N, C, H, W], and this one is [N, C, T, H, W]"

    @property
    def module(self) -> str:
        """The path of the block's module in the changed network: `se/layer1.0[0]` -> `layer1.0.se`."""
        ordinal = ordinal_of(self.key)
        name = self.rule if ordinal == 0 else f"{self.rule}_{ordinal}"
        return f"{self.scope}.{name}" if self.scope else name


@dataclass(frozen=True)
class Removal:
    """An existing channel gate to remove: readers of `output` read `value` instead; `scope` is the gate's own."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    key: Key
    rule: str
    scope: str
    stage: Positive | None
    channels: Positive
    height: Positive
    width: Positive
    output: str
    value: str
    frames: Positive | None = None

    @property
    def shape(self) -> Shape:
        """The map's."""
        return shape_of(self)


@dataclass(frozen=True)
class Rejection:
    """A candidate that a rule rejected."""

    rule: str
    reason: Reason

    def to_dict(self) -> dict[str, str]:
        """The form in a plan's file and in `plan --json`."""
        return {"rule": self.rule, "where": self.reason.where, "why": self.reason.text, "kind": self.reason.kind}


def _as_rejection(value: Any) -> Rejection:
    """A rejection from a plan's file; earlier versions wrote no kinds."""
    if not isinstance(value, Mapping) or {*value} | {"kind"} != {"rule", "where", "why", "kind"}:
        raise ValueError("a mapping of 'rule', 'kind', 'where' and 'why' is expected")
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError("texts are expected")
    return Rejection(value["rule"], Reason(value.get("kind", ""), value["where"], value["why"]))


@dataclass(frozen=True)
class Plan:
    """All sites and every rejection with its reason, for one spec on one view. `stages` are (height, width).

    Removals come first; a site's `value` and `uses` are those of the graph after them. `rules` are the names of the
    spec's rules, in its order. `called` are modules that the view shows as one operation, for no graph is the same
    function as their forward.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    rules: tuple[str, ...]
    sites: tuple[Site, ...]
    removals: tuple[Removal, ...]
    rejected: tuple[Annotated[Rejection, PlainValidator(_as_rejection)], ...]
    warnings: tuple[str, ...]
    stages: tuple[tuple[int, ...], ...]
    view_digest: str
    spec_digest: str
    called: tuple[str, ...] = ()

    def table(self) -> str:
        """Sites and removals as an aligned text table, one per line."""
        rows = [("site", "stage", "channels", "size", "block", "on")]
        for gone in self.removals:
            rows.append((gone.key, *_place(gone), f"remove {gone.scope or gone.output}", gone.value))
        for site in self.sites:
            options = ", ".join(f"{key}={_short(value)}" for key, value in _unusual(site.block).items())
            rows.append((site.key, *_place(site), f"{site.block.name}({options})", site.value))
        return "\n".join(aligned(rows, left=range(len(rows[0]))))

    def stage_line(self) -> str:
        """The resolutions of the stages: `stages: 1 = 56x56, 2 = 28x28`."""
        named = (f"{number} = {size_of(stage)}" for number, stage in enumerate(self.stages, start=1))
        return "stages: " + (", ".join(named) or "none")

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON."""
        return digest_text(self.to_json())

    def to_json(self) -> str:
        """The plan as JSON; `from_json` is the inverse."""
        data = asdict(self)
        for item, site in zip(data["sites"], self.sites, strict=True):
            item["block"] = options_to_dict(site.block, "block")
        if not self.called:
            # As plans were written before there were any.
            del data["called"]
        for item in (*data["sites"], *data["removals"]):
            if item["frames"] is None:
                del item["frames"]
        data["rejected"] = [item.to_dict() for item in self.rejected]
        return to_json(data)

    @classmethod
    def from_json(cls, text: str, blocks: Catalog[Any]) -> Plan:
        """A plan from its JSON, with every type checked; the catalog validates the blocks' options.

        Raises pydantic's ValidationError, or SE105 for a block that is not known here.
        """
        return _ADAPTER.validate_json(text, strict=True, context=blocks)


_ADAPTER = TypeAdapter(Plan)


def _place(item: Site | Removal) -> tuple[str, str, str]:
    return "-" if item.stage is None else str(item.stage), str(item.channels), size_of(shape_of(item)[1:])


def shape_of(item: Site | Removal) -> Shape:
    """(channels, height, width) of a place's map, or (channels, time, height, width)."""
    times = () if item.frames is None else (item.frames,)
    return (item.channels, *times, item.height, item.width)


def size_of(sizes: tuple[int, ...]) -> str:
    """As people read it: `56x56`."""
    return "x".join(map(str, sizes))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unusual(block: Ref[Block]) -> Mapping[str, object]:
    """The options that differ from the block's defaults."""
    given = options_to_dict(block, "block")
    fields = type(block.options).__dataclass_fields__  # type: ignore[attr-defined]
    usual = {
        key: field.default if field.default_factory is MISSING else field.default_factory()
        for key, field in fields.items()
    }
    return {key: value for key, value in given.items() if key != "block" and value != usual[key]}
