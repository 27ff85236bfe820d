"""Reading `last.ckpt`: a Lightning checkpoint that also holds the epochs done and the recipe. Weights only, no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from sesurgery.diagnostics import fail, first_line
from sesurgery.spec.train import Train
from sesurgery.training.history import Epoch, Partial

OWN = "sesurgery"
PREFIX, AVERAGED = "model.", "ema.module."
_HISTORY = TypeAdapter(tuple[Epoch, ...])
_PARTIAL = TypeAdapter(Partial | None)
_DIGEST = TypeAdapter(str | None)
_RECIPE = TypeAdapter(dict[str, Any])
START_OVER = "start again with --restart"


@dataclass(frozen=True)
class Saved:
    """What of a checkpoint matters outside Lightning: the epochs done, the recipe they followed, the weights."""

    history: tuple[Epoch, ...]
    recipe: dict[str, Any]
    weights: dict[str, torch.Tensor]
    averaged: dict[str, torch.Tensor]
    """The moving average of the weights; empty if the recipe keeps none."""
    partial: Partial | None = None
    """How far the next epoch is; None between two epochs."""
    spec_digest: str | None = None
    """Of the spec that it was trained by; None where there was none, and in checkpoints of earlier versions."""

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """The weights that training ends with, were it to end here."""
        return self.averaged or self.weights


def own_part(
    history: tuple[Epoch, ...], recipe: Train, partial: Partial | None = None, spec_digest: str | None = None
) -> dict[str, Any]:
    """What is stored under the key `OWN`: plain data, so that the file loads with weights_only."""
    return {
        "history": [asdict(epoch) for epoch in history],
        "recipe": _decisive(recipe),
        "partial": None if partial is None else asdict(partial),
        "spec_digest": spec_digest,
    }


def read(path: Path) -> Saved:
    """The checkpoint at `path`; raises SE402 if there is none and SE502 if it is not one of ours."""
    if not path.is_file():
        raise fail("SE402", f"there is no checkpoint to resume from: {path} is missing", "train without resuming first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        own, weights = content[OWN], content["state_dict"]
        if not all(isinstance(value, torch.Tensor) for value in weights.values()):
            raise TypeError("a weight is not a tensor")
        recipe = _RECIPE.validate_python(own["recipe"])
        for key, size in (("batch_size", recipe["batch_size"]), ("accumulate", recipe.get("accumulate", 1))):
            if type(size) is not int or size < 1:
                raise TypeError(f"its recipe's {key} is {size!r}, not a positive integer")
        return Saved(
            history=_HISTORY.validate_python(own["history"]),
            recipe=recipe,
            weights=_below(PREFIX, weights),
            averaged=_below(AVERAGED, weights),
            partial=_PARTIAL.validate_python(own.get("partial")),
            spec_digest=_DIGEST.validate_python(own.get("spec_digest")),
        )
    # torch.load has no error of its own: a damaged file raises whatever its reader trips over.
    except Exception as error:
        reason = first_line(error)
        raise fail("SE502", f"{path} cannot be read as a training checkpoint: {reason}", START_OVER) from error


def require_fit(saved: Saved, model: nn.Module, recipe: Train, path: Path) -> None:
    """Raise SE502 if the checkpoint is of another architecture, or of a recipe that differs in more than length."""
    problems = _weight_problems(saved.weights, model.state_dict())
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise fail("SE502", f"{path} is of another network: {', '.join(problems[:3])}{more}", START_OVER)
    before, now = _flat(saved.recipe), _flat(_decisive(recipe))
    if before.get("batch_size", 0) * before.get("accumulate", 1) == recipe.batch_size * recipe.accumulate:
        # Steps of as many samples, in other parts: the way out where memory is short.
        before |= {key: now[key] for key in ("batch_size", "accumulate")}
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        listed = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise fail("SE502", f"{path} was trained by another recipe: {listed}", f"put it back, or {START_OVER}")


def require_spec(saved: Saved, digest: str | None, path: Path) -> None:
    """Raise SE502 if the checkpoint says that it is of another spec."""
    if saved.spec_digest is not None and digest is not None and saved.spec_digest != digest:
        text = f"{path} is of another spec: its digest is {saved.spec_digest[:12]}…, this run's is {digest[:12]}…"
        raise fail("SE502", text, f"put this run's own checkpoint back, or {START_OVER}")


def partial_of(saved: Saved, recipe: Train) -> Partial | None:
    """How far the next epoch is, in batches of the recipe that resumes it."""
    if saved.partial is None:
        return None
    samples = saved.partial.batches * int(saved.recipe["batch_size"])
    return replace(saved.partial, batches=samples // recipe.batch_size)


def _below(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _decisive(recipe: Train) -> dict[str, Any]:
    # A run may be made longer, and may move to a machine with other cores. A preset is what it stands for.
    return recipe.model_dump(
        mode="json",
        exclude={
            "epochs",
            "threads",
            "workers",
            "keep",
            "keep_epochs",
            "save_minutes",
            "preset",
            "compile",
            "trackers",
        },
    )


def _weight_problems(saved: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    problems = [f"{key} is not in the checkpoint" for key in own if key not in saved]
    problems += [f"{key} is not in the network" for key in saved if key not in own]
    problems += [
        f"{key} is {tuple(saved[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in saved and saved[key].shape != own[key].shape
    ]
    return problems


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
