"""Options that stand in a spec and that another choice beside them would leave without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sesurgery.diagnostics import Diagnostic, SpecError
from sesurgery.spec.spec import Spec
from sesurgery.spec.train import WITH_MOMENTUM

_SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "decay_epochs": ("step",),
    "milestones": ("multistep",),
    "decay_rate": ("step", "multistep", "poly"),
    "min_lr": ("cosine", "tanh", "poly"),
}
"""The schedules that read an option."""
_OPTIMIZERS: Mapping[str, tuple[str, ...]] = {"momentum": WITH_MOMENTUM, "nesterov": ("sgd",)}


def require_effect(spec: Spec) -> None:
    """Raise SpecError if an option that is written down has no effect.

    Only of a spec that somebody writes: a run was trained by its own as it stands.
    """
    if found := list(_without_effect(spec)):
        raise SpecError(found)


def _without_effect(spec: Spec) -> Iterator[Diagnostic]:
    train = spec.train
    parts = (("optimizer", train.optimizer, _OPTIMIZERS), ("schedule", train.schedule, _SCHEDULES))
    for section, part, readers in parts:
        for key in sorted(part.model_fields_set & readers.keys() if part else ()):
            if part and part.name not in readers[key]:
                text = f"'train.{section}.{key}' has no effect: {part.name!r} does not read it"
                hint = f"take it out; it is for {', '.join(readers[key])}"
                yield Diagnostic("SE107", text, spec.span("train", section, key, key=True), hint)
