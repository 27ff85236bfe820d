"""The section `surgery:` of a spec: its rules, each with what is inserted or removed, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from sesurgery.spec.bounds import Short
from sesurgery.spec.frozen import Frozen, Globs, Positive
from sesurgery.spec.plugins import BlockField, ExistingField, PlacementField

RuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$"), Short]


class Filters(Frozen):
    """Which of a rule's candidates are taken; all filters must agree."""

    name: RuleName | None = Field(
        None, description="names the rule's blocks in keys and state dicts; default: the block's name"
    )
    stages: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = Field(
        None, description="only these stages, numbered by resolution in order of first appearance"
    )
    within: Globs | None = Field(None, description="globs over scopes: only these")
    except_: Globs | None = Field(None, alias="except", description="globs over scopes: not these")
    min_channels: Positive | None = Field(None, description="rejects sites with fewer channels")
    max_channels: Positive | None = Field(None, description="rejects sites with more channels")
    min_size: Positive | None = Field(None, description="rejects maps that are smaller in height or width")
    max_size: Positive | None = Field(None, description="rejects maps that are larger in height or width")
    pick: Literal["first", "last"] | None = Field(None, description="only the first or last site of each stage")
    every: Positive | None = Field(None, description="every n-th of the remaining sites, starting with the first")
    expect: Annotated[int, Field(ge=0)] | None = Field(None, description="any other number of sites is an error")


class InsertRule(Filters):
    """Blocks that are put in: what, and where."""

    insert: BlockField = Field(description="the block: its name, or a mapping with `block:` and its options")
    at: PlacementField = Field(description="the placement: its name, or a mapping with `placement:` and its options")


class RemoveRule(Filters):
    """Existing channel gates to remove, found by their dataflow."""

    remove: ExistingField = Field(description="what is taken out: se, effective_se or any")


class ReplaceRule(Filters):
    """Existing channel gates to replace by a block in the same places."""

    replace: ExistingField = Field(description="what is taken out: se, effective_se or any")
    insert: BlockField = Field(description="the block that takes its place")


def _rule_kind(given: object) -> str:
    # What is not a mapping is judged as the kind that most rules are.
    keys = given if isinstance(given, dict) else getattr(given, "__dict__", {})
    return "RemoveRule" if "remove" in keys else "ReplaceRule" if "replace" in keys else "InsertRule"


Rule = InsertRule | RemoveRule | ReplaceRule
RuleField = Annotated[
    Annotated[InsertRule, Tag("InsertRule")]
    | Annotated[RemoveRule, Tag("RemoveRule")]
    | Annotated[ReplaceRule, Tag("ReplaceRule")],
    Discriminator(_rule_kind),
]


def rule_names(rules: Sequence[Rule]) -> tuple[str, ...]:
    """A name for each rule: as given, else the block's name; a second rule of the same name becomes `se_2`."""
    names: list[str] = []
    for rule in rules:
        kind = f"remove_{rule.remove}" if isinstance(rule, RemoveRule) else rule.insert.name
        stem = rule.name or re.sub(r"\W", "_", kind)
        name, count = stem, 1
        while name in names:
            count += 1
            name = f"{stem}_{count}"
        names.append(name)
    return tuple(names)
