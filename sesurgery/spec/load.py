"""Load a spec from a file or a mapping; all mistakes are reported at once, each with its place and a hint."""

from __future__ import annotations

import functools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from sesurgery.diagnostics import Diagnostic, SpecError, clipped, suggest
from sesurgery.spec.engines import Engine
from sesurgery.spec.given import GivenModel
from sesurgery.spec.input import Input
from sesurgery.spec.listed import with_names
from sesurgery.spec.model import Model
from sesurgery.spec.plugins import Catalogs, on_its_preset
from sesurgery.spec.source import Place, SpecText, read_source, write
from sesurgery.spec.spec import Spec
from sesurgery.spec.surgery import Rule, RuleField

T = TypeVar("T")


def load(given: Path | str | Mapping[str, object], catalogs: Catalogs, *, name: str | None = None) -> Spec:
    """The typed spec of a YAML file, or of a mapping that holds the same; raises SpecError with every mistake.

    `name` is the spec's name where it gives none itself; the file's stem otherwise.
    """
    if isinstance(given, Mapping):
        return _validate(dict(given), None, name or "spec", catalogs)
    path = Path(given)
    source = read_source(path)
    return _validate(dict(source.data), source, name or path.stem, catalogs)


def _changed(data: dict[str, Any], file: str, *, name: str, catalogs: Catalogs) -> Spec:
    """The typed spec of data without a file, written as YAML so that mistakes can point at it."""
    source = SpecText(file, write(data))
    return _validate(source.data, source, name, catalogs)


def _validate(data: dict[str, Any], source: SpecText | None, name: str, catalogs: Catalogs) -> Spec:
    whole = with_names(data, source)
    # What was read from elsewhere is part of the spec: its text is then written again.
    written, data = (data if whole is data else None), whole
    # Defaults that name a plugin need the catalogs as much as what is written does.
    data = {"name": name, "train": {}, "engines": [{}], **data}
    data["train"] = on_its_preset(data["train"], catalogs)
    try:
        spec = Spec.model_validate_json(json.dumps(data), context=catalogs, strict=True)
    except ValidationError as error:
        raise SpecError(_diagnostics(error.errors(include_url=False), (), data, source, None)) from None
    spec.remember(source, written, functools.partial(_changed, name=spec.name, catalogs=catalogs))
    return spec


def load_engine(data: dict[str, Any], catalogs: Catalogs) -> Engine:
    """One entry of `engines:`; raises SpecError with every mistake."""
    return _part(TypeAdapter(Engine), data, ("engines", 0), {"engines": [data]}, catalogs)


def load_rule(data: dict[str, Any], catalogs: Catalogs) -> Rule:
    """One entry of `surgery:`; raises SpecError with every mistake."""
    (data,) = with_names({"surgery": [data]}, None)["surgery"]
    return _part(_rules(), data, ("surgery", 0), {"surgery": [data]}, catalogs)


@functools.cache
def _rules() -> TypeAdapter[Rule]:
    """Made once: `inspect` loads a rule for each placement."""
    return TypeAdapter[Rule](RuleField)


def load_model(data: dict[str, Any], catalogs: Catalogs) -> GivenModel:
    """What stands under `model:`, without a spec around it; raises SpecError with every mistake."""
    return GivenModel(_part(TypeAdapter[Model](Model), data, ("model",), {"model": data}, catalogs))


def load_shape(shape: Sequence[int], catalogs: Catalogs) -> tuple[int, ...]:
    """What stands under `input: shape:`; raises SpecError with every mistake."""
    data = {"shape": list(shape)}
    return _part(TypeAdapter(Input), data, ("input",), {"input": data}, catalogs).shape


def _part(kind: TypeAdapter[T], data: dict[str, Any], place: Place, around: dict[str, Any], catalogs: Catalogs) -> T:
    """A part of a spec that is in no file; `around` is the data that has it at `place`."""
    try:
        return kind.validate_json(json.dumps(data), context=catalogs, strict=True)
    except ValidationError as error:
        mistakes = [{**mistake, "loc": (*place, *mistake["loc"])} for mistake in error.errors(include_url=False)]
        raise SpecError(_diagnostics(mistakes, (), around, None, None)) from None


def _diagnostics(
    errors: Sequence[Any], prefix: Place, data: Any, source: SpecText | None, known: Sequence[str] | None
) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    wrong_inside = {tuple(error["loc"][:depth]) for error in errors for depth in range(len(error["loc"]))}
    for error in errors:
        # pydantic calls a list too short when its items were wrong: that is said of the items already.
        if error["type"] == "too_short" and tuple(error["loc"]) in wrong_inside:
            continue
        place = prefix + _place(error["loc"], _at(data, prefix))
        context = error.get("ctx", {})
        if error["type"] == "plugin_options":
            found.extend(_diagnostics(context["errors"], place, data, source, context["known"]))
            continue
        found.append(_Mistake(error, place, _at(data, place), source, known).diagnostic())
    return sorted(found, key=lambda item: (item.span.line, item.span.column) if item.span else (0, 0))


@dataclass(frozen=True)
class _Mistake:
    """One of pydantic's errors, with its place in the spec's data and the value there."""

    error: Any
    place: Place
    value: Any
    source: SpecText | None
    known: Sequence[str] | None
    """The keys of a plugin's options, if the place is one of them."""

    def diagnostic(self) -> Diagnostic:
        return self._of_a_key() or self._of_a_name() or self._of_a_value()

    def _made(
        self, code: str, message: str, hint: str | None, at: Place | None = None, *, key: bool = False
    ) -> Diagnostic:
        at = self.place if at is None else at
        if self.source is None:
            message = f"{'.'.join(map(str, at)) or 'spec'}: {message}"
        return Diagnostic(code, message, self.source.span(at, key=key) if self.source else None, hint)

    def _of_a_key(self) -> Diagnostic | None:
        """A key that is unknown, missing or not passed on."""
        kind, context, loc = self.error["type"], self.error.get("ctx", {}), self.error["loc"]
        last = str(loc[-1]) if loc else ""
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            names = self.known or _known_keys(loc[:-1])
            return self._made("SE101", f"unknown key {clipped(repr(last))}", suggest(last, names), key=True)
        if kind == "missing" and isinstance(loc[-1], int):
            text = f"a list of {int(last) + 1} is expected, item {int(last) + 1} is missing"
            return self._made("SE102", text, _described(loc[:-1]), self.place[:-1])
        if kind in ("missing", "missing_argument"):
            return self._made("SE102", f"missing key {last!r}", _described(loc) or f"add '{last}: ...'", key=True)
        if kind in ("plugin_missing", "union_tag_not_found"):
            name = context.get("missing") or str(context["discriminator"]).strip("'")
            return self._made("SE102", f"missing key {name!r}", f"add '{name}: ...'", key=True)
        if kind == "withheld":
            hint = "use 'checkpoint' for a file of weights (tensors alone), and 'pretrained' for the library's own"
            return self._made("SE109", self.error["msg"], hint, (*self.place, *context.get("inner", ())), key=True)
        return None

    def _of_a_name(self) -> Diagnostic | None:
        """A name that is not one of those that are known."""
        kind, context, loc = self.error["type"], self.error.get("ctx", {}), self.error["loc"]
        if kind == "plugin_unknown":
            return self._made("SE105", self.error["msg"], context["hint"], (*self.place, *context.get("inner", ())))
        if kind == "union_tag_invalid":
            name = str(context["discriminator"]).strip("'")
            tags = re.findall(r"'([^']+)'", context["expected_tags"])
            text = f"unknown {name} {clipped(repr(context['tag']))}"
            return self._made("SE105", text, suggest(context["tag"], tags), (*self.place, name))
        if kind == "literal_error" and self.place == ("version",):
            text = f"this is version {_shown(self.value)} of the spec, expected {context['expected']}"
            return self._made("SE106", text, "write 'version: 1'")
        if kind == "literal_error":
            names = re.findall(r"'([^']+)'", context["expected"])
            return self._made("SE105", f"unknown {_called(loc)} {_shown(self.value)}", suggest(str(self.value), names))
        return None

    def _of_a_value(self) -> Diagnostic:
        """A value of the wrong type or out of range, or values that exclude each other."""
        kind, context, loc = self.error["type"], self.error.get("ctx", {}), self.error["loc"]
        message, shown = str(self.error["msg"]), _shown(self.value)
        within = (*self.place, *context.get("inner", ()))
        if kind in ("excluding", "value_error"):
            hint = "keep one of them, or make them agree"
            return self._made("SE107", message.removeprefix("Value error, "), hint, within)
        if kind == "incomplete":
            return self._made("SE102", message, context["hint"], within)
        if kind in ("too_short", "too_long"):
            bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
            return self._made("SE104", f"{bound} expected, found {shown}", _described(loc) or "write a list")
        if kind == "range":
            return self._made("SE104", message, context.get("hint") or _described(loc), within)
        if kind in _RANGE:
            wanted = message.removeprefix("Input should ").removeprefix("String should ").replace("be ", "must be ", 1)
            return self._made("SE104", f"{wanted}, found {shown}", _described(loc) or "choose a value in that range")
        expected = message.removeprefix("Input should be ").removeprefix("expected ").replace("a valid", "a")
        expected = _ARTICLES.get(expected, expected)
        keys = _known_keys(loc) if kind == "model_type" else []
        how = f"its keys: {', '.join(keys)}" if keys else _HOW.get(expected, f"write {expected} here")
        return self._made("SE103", f"expected {expected}, found {shown}", _described(loc) or how)


_ARTICLES = {"a integer": "an integer", "a array": "a list", "an object": "a mapping", "a tuple": "a list"}
_HOW = {"a boolean": "write true or false, without quotes"}
_RANGE = (
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
    "string_pattern_mismatch", "string_too_short",
)  # fmt: skip


def _called(loc: Sequence[str | int]) -> str:
    """What a value is called in an error: its key, or of a list's item that of the list."""
    key = next((step for step in reversed(loc) if isinstance(step, str)), "")
    return key if loc[-1] == key else f"item of {key!r}:"


def _place(loc: Sequence[str | int], data: Any) -> Place:
    """pydantic's location without the union tags it adds: only steps that the data has, and a last one it may lack."""
    place: list[str | int] = []
    for index, step in enumerate(loc):
        inside = step in data if isinstance(data, dict) else isinstance(data, list) and isinstance(step, int)
        if not inside and index < len(loc) - 1:
            continue
        if not inside and not isinstance(data, dict):
            continue
        place.append(step)
        data = _at(data, (step,))
    return tuple(place)


def _at(data: Any, place: Place) -> Any:
    for step in place:
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            return None
    return data


def _known_keys(loc: Sequence[str | int]) -> list[str]:
    model = _model_at(loc)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _described(loc: Sequence[str | int]) -> str | None:
    model = _model_at(loc[:-1]) if loc else None
    for name, field in model.model_fields.items() if model else ():
        if loc[-1] in (name, field.alias) and field.description:
            return f"{field.alias or name}: {field.description}"
    return None


def _model_at(loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model whose keys stand at a pydantic location."""
    candidates: list[type[BaseModel]] = [Spec]
    for step in loc:
        if isinstance(step, int):
            continue
        tagged = [model for model in candidates if step == model.__name__ or step in _tags(model)]
        if tagged:
            candidates = tagged
            continue
        fields = [
            field for model in candidates for name, field in model.model_fields.items() if step in (name, field.alias)
        ]
        candidates = [inner for field in fields for inner in _models_in(field.annotation)]
    return candidates[0] if candidates else None


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The values of `source:` that choose this model among its alternatives."""
    source = model.model_fields.get("source")
    return typing.get_args(source.annotation) if source else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else clipped(repr(value))
