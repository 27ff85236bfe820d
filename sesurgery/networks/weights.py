"""Weights from a local file into a network: in its own keys, or through a key map, those of inserted blocks as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sesurgery.diagnostics import Span, fail, first_line
from sesurgery.networks.heads import NewHead, new_head, without_head
from sesurgery.networks.keymaps.base import InBlock
from sesurgery.planner import Plan
from sesurgery.spec.checkpoint import Checkpoint

State = dict[str, Tensor]

_WRAPPERS = (
    *("state_dict", "model", "model_state", "model_state_dict", "module"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
"""Keys under which training scripts save a state dict; where there are several, the first. Averages come last."""
_PARALLEL = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""
_AVERAGED = "n_averaged"
_COUNT = ".num_batches_tracked"


@dataclass(frozen=True)
class WeightsFile:
    """The checkpoint of a spec: its file, and what of it goes where; `span` is where the spec names it."""

    checkpoint: Checkpoint
    path: Path
    span: Span | None = None

    def load_network(self, network: nn.Module) -> NewHead | None:
        """Give a network without blocks its values; raises SE401 unless every key and shape fits.

        Where the file has another number of classes and nothing else differs, the head keeps its own and is returned.
        """
        state = self._completed(network, {place: value for place, value in self._placed() if isinstance(place, str)})
        return load_backbone(network, state, str(self.path), self.span)

    def load_blocks(self, changed: nn.Module, plan: Plan, part: str = "") -> None:
        """Give the blocks of a plan the values that the file has for them; blocks that it does not have stay fresh.

        `part` is the path of the part that was planned. Raises SE401 if a value fits no block.
        """
        if self.checkpoint.keys is None:
            return
        blocks = {f"{part}.{site.scope}".strip("."): f"{part}.{site.module}".strip(".") for site in plan.sites}
        found: dict[str, State] = {}
        for place, value in self._placed():
            if isinstance(place, InBlock):
                found.setdefault(place.scope, {})[place.parameter] = value
        if strays := [scope for scope in found if scope not in blocks]:
            text = f"{self.path} has values for {len(strays)} blocks that no rule inserts ({_few(strays)})"
            raise fail("SE401", text, "insert blocks there, or take a file of the plain network", span=self.span)
        for scope, state in found.items():
            block = changed.get_submodule(blocks[scope])
            own = block.state_dict()
            # A linear layer on pooled values is a 1 x 1 convolution.
            fitted = {
                key: value.reshape(own[key].shape) if key in own and _same_values(value, own[key]) else value
                for key, value in state.items()
            }
            _load(block, fitted, self.path, self.span, f"the block on {scope}")

    def _placed(self) -> Iterable[tuple[str | InBlock, Tensor]]:
        state = self._asked(read_state(self.path, self.span))
        if self.checkpoint.keys is None:
            return list(state.items())
        places = self.checkpoint.keys.options.places(state.keys())
        return [(places[key], value) for key, value in state.items()]

    def _asked(self, state: State) -> State:
        """Without the file's keys that the spec ignores."""
        globs = self.checkpoint.ignore or ()
        for glob in globs:
            if not any(fnmatchcase(key, glob) for key in state):
                text = f"no key of {self.path.name} matches {glob!r}, which `ignore` names"
                raise fail("SE401", text, f"its last keys: {', '.join(list(state)[-2:])}", span=self.span)
        return {key: value for key, value in state.items() if not any(fnmatchcase(key, glob) for glob in globs)}

    def _completed(self, network: nn.Module, state: State) -> State:
        """With the network's own values where the spec says so, and for counts that files before PyTorch 0.4 lack."""
        own = network.state_dict()
        kept = [key for key in own if any(fnmatchcase(key, glob) for glob in self.checkpoint.except_ or ())]
        if self.checkpoint.keys is not None and not any(key.endswith(_COUNT) for key in state):
            kept += [key for key in own if key.endswith(_COUNT)]
        for glob in self.checkpoint.except_ or ():
            if not any(fnmatchcase(key, glob) for key in own):
                text = f"no key of the network matches {glob!r}"
                raise fail("SE401", text, f"its last keys: {', '.join(list(own)[-2:])}", span=self.span)
        return {**state, **{key: own[key] for key in kept}}


def load_weights(network: nn.Module, path: Path, span: Span | None = None) -> None:
    """Load a local state dict (`.safetensors`, or a torch file of tensors alone); every key and shape must match."""
    _load(network, read_state(path, span), path, span)


def read_state(path: Path, span: Span | None = None) -> State:
    """The tensors of a file by their keys, without a `module.` before all of them; raises SE401 if it has none."""
    if not path.is_file():
        raise fail("SE401", f"the weights file {path} is not there", "check the path", span=span)
    state: object
    try:
        safe = path.suffix == ".safetensors"
        # On the CPU, wherever they were saved: this machine may have no such device.
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = f"{path} is not a weights file: {first_line(error)}"
        raise fail("SE401", text, "save a state dict with safetensors or torch.save", span=span) from error
    while (inner := _wrapped(state)) is not None:
        state = inner
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        text = f"{path} holds no state dict"
        hint = f"save `model.state_dict()`, by itself or under one of: {', '.join(_WRAPPERS)}"
        raise fail("SE401", text, hint, span=span)
    # torch's AveragedModel counts its steps beside the weights.
    averaged = _AVERAGED in state and any(str(key).startswith(_PARALLEL[0]) for key in state)
    plain = {str(key): value for key, value in state.items() if not (averaged and key == _AVERAGED)}
    while prefix := next((one for one in _PARALLEL if plain and all(key.startswith(one) for key in plain)), ""):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _wrapped(state: object) -> object:
    """What lies under the first wrapper of a file that is a mapping; None if there is none."""
    if not isinstance(state, dict):
        return None
    return next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), None)


def load_backbone(network: nn.Module, state: State, of: str, span: Span | None = None) -> NewHead | None:
    """Give a network the values of a state dict, but for a head of other classes, which is returned.

    Raises SE401 if anything else does not fit.
    """
    head = new_head(network, state, of)
    if head is not None:
        own = network.state_dict()
        kept = without_head(state, head)
        gone = [key for key in state if key not in kept]
        state = {**kept, **{key: own[key] for key in gone if key in own}}
    _load(network, state, of, span)
    return head


def _load(network: nn.Module, state: State, of: Path | str, span: Span | None, what: str = "the network") -> None:
    own = network.state_dict()
    problems = [
        *_named("missing", [key for key in own if key not in state]),
        *_named("unknown", [key for key in state if key not in own]),
        *_named("of another shape", [key for key in own if key in state and own[key].shape != state[key].shape]),
    ]
    if problems:
        text = f"{of} does not fit {what}: " + "; ".join(problems)
        raise fail("SE401", text, _FITTING, span=span)
    network.load_state_dict(state)


_FITTING = (
    "check 'name', 'kwargs' and, of a block, its options; of a checkpoint, `except:` leaves keys of the network as "
    "they are, and `ignore:` leaves keys of the file out"
)


def _named(what: str, keys: list[str]) -> Iterable[str]:
    if keys:
        yield f"{len(keys)} {what} ({_few(keys)})"


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _same_values(value: Tensor, other: Tensor) -> bool:
    """Whether two shapes differ by sizes of one alone."""
    return [size for size in value.shape if size != 1] == [size for size in other.shape if size != 1]


@dataclass(frozen=True)
class Taken:
    """What a network took over of another one's values, by key: how many, and the modules that have or had no partner.

    `fresh` are modules of the network that the other lacks and that keep their own values, `left` those that the other
    has alone.
    """

    count: int
    fresh: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        told = [f"{self.count} values taken"]
        told += [f"{len(self.fresh)} fresh ({', '.join(self.fresh)})"] if self.fresh else []
        told += [f"{len(self.left)} left over ({', '.join(self.left)})"] if self.left else []
        return "; ".join(told)


def take(network: nn.Module, path: Path) -> Taken:
    """Give a network the values of a state dict wherever a key is in both.

    Raises SE401 if one of them has another shape, or if there is none.
    """
    own, state = network.state_dict(), read_state(path)
    shared = [key for key in own if key in state]
    if not shared:
        text = f"{path} does not fit the network: no key is in both ({_few(list(state))} there, {_few(list(own))} here)"
        raise fail("SE401", text, "give the run of another spec for the same backbone")
    if problems := [key for key in shared if own[key].shape != state[key].shape]:
        first = problems[0]
        sizes = " and ".join(
            f"{tuple(values[first].shape)} {where}" for values, where in ((state, "there"), (own, "here"))
        )
        text = (
            f"{path} does not fit the network: {len(problems)} of another shape ({_few(problems)}; {first} is {sizes})"
        )
        raise fail("SE401", text, "give a run whose network and blocks have the same sizes, or leave --weights out")
    network.load_state_dict({**own, **{key: state[key] for key in shared}})
    known = {key[:end] for key in shared for end in _ends(key)}
    return Taken(
        len(shared),
        tuple(dict.fromkeys(_without_partner(key, known) for key in own if key not in state)),
        tuple(dict.fromkeys(_without_partner(key, known) for key in state if key not in own)),
    )


def _ends(key: str) -> Iterable[int]:
    return (*(place for place, sign in enumerate(key) if sign == "."), len(key))


def _without_partner(key: str, known: set[str]) -> str:
    """The outermost module of a key none of whose values is known; the key itself where its module has others."""
    return next((key[:end] for end in _ends(key) if key[:end] not in known), key)
