"""What a network costs, module by module: parameters, multiply-accumulates (MACs), activations, by a named convention.

`torch`: half of the FLOPs of torch's FlopCounterMode, which are the MACs of convolutions, linear layers and matrix
products. Norms, activations, pools and element-wise operations are not counted.

`fvcore`: what fvcore calls flops, one a multiply-accumulate. To the MACs above it adds, in eval mode,
    batch norm                2 x numel of its input (1 x without affine parameters)
    layer and group norm      5 x numel of its input (4 x without)
    global average pool       1 x numel of its input, and so for every adaptive average pool
    resize, grid sample       1 x numel of its output (nearest), 4 x (bilinear)
and nothing for activations, sums, products, other means and other pools. One departure: fvcore counts a global average
pool by AdaptiveAvgPool2d and passes over the same one written `x.mean((2, 3))`; here the two count alike, so that a
Squeeze-and-Excitation block costs the same however it is written.

Activations are, in both, the elements that convolutions, linear layers and matrix products put out.
Nothing is computed: shapes alone run through the network, for one image. Where a network looks at its data it is run
once, on zeros.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from sesurgery.counting import Convention, Counting, Scoped, scopes
from sesurgery.muting import fake_tensors_muted
from sesurgery.tables import aligned

CONVENTION = "MACs of convolutions, linear layers and matrix products, one image"
CONVENTIONS: dict[Convention, str] = {
    "torch": CONVENTION,
    "fvcore": "flops as fvcore counts them (a MAC is one; norms, global average pools and resizes count), one image",
}

NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)
"""What fake tensors, which have a shape and no values, raise where a network looks at its data."""


@dataclass(frozen=True)
class Cost:
    """Parameters (each counted once) and MACs for one image."""

    params: int
    macs: int


@dataclass(frozen=True)
class Row:
    """What one module costs; `macs` by the account's convention. The path of the network itself is empty."""

    path: str
    params: int
    macs: int
    activations: int


@dataclass(frozen=True)
class Account:
    """The modules that have parameters or cost something, each without its children, in the network's order."""

    convention: Convention
    rows: tuple[Row, ...]

    @property
    def total(self) -> Row:
        return _sum("", self.rows)

    def part(self, *paths: str) -> Row:
        """The sum of whole subtrees: `account.part("conv1", "bn1")`."""
        inside = [row for row in self.rows if any(f"{row.path}.".startswith(f"{path}.") for path in paths)]
        return _sum(", ".join(paths), inside)

    def by_part(self, depth: int = 1) -> Account:
        """The same cost with every path cut to its first `depth` names."""
        parts: dict[str, list[Row]] = {}
        for row in self.rows:
            parts.setdefault(".".join(row.path.split(".")[:depth]), []).append(row)
        return Account(self.convention, tuple(_sum(path, rows) for path, rows in parts.items()))

    def table(self) -> str:
        """The rows and their total as an aligned text table."""
        unit = "MACs" if self.convention == "torch" else "flops (fvcore)"
        lines = [("module", "parameters", unit, "activations")]
        for path, row in [*((row.path or "(itself)", row) for row in self.rows), ("total", self.total)]:
            lines.append((path, f"{row.params:,}", f"{row.macs:,}", f"{row.activations:,}"))
        return "\n".join(aligned(lines))

    def to_dict(self) -> dict[str, object]:
        """Plain data: the convention in a name and in words, the rows and the total."""
        return {
            "convention": self.convention,
            "counts": CONVENTIONS[self.convention],
            "rows": [vars(row).copy() for row in self.rows],
            "total": {key: value for key, value in vars(self.total).items() if key != "path"},
        }


def cost(module: nn.Module, shape: tuple[int, ...]) -> Cost:
    """The cost of a module on one image of `shape` (channels, height, width) by torch's convention."""
    total = account(module, shape).total
    return Cost(total.params, total.macs)


def account(module: nn.Module, shape: tuple[int, ...], convention: Convention = "torch") -> Account:
    """The cost of every module inside `module` on one image of `shape` (channels, height, width), in eval mode.

    An operation belongs to the innermost module whose call it runs in; one that stands in a traced graph belongs to the
    module it was traced from. A parameter that several modules share belongs to the first of them.
    """
    counting, _ = _counted(module, shape, convention)
    seen: set[nn.Parameter] = set()
    params = {path: _own(part, seen) for path, part in module.named_modules()}
    # A traced graph may remember modules that it no longer has.
    rows = [
        Row(path, params.get(path, 0), counting.macs[path], counting.activations[path])
        for path in dict.fromkeys([*params, *counting.macs])
    ]
    return Account(convention, tuple(row for row in rows if row.params or row.macs or row.activations))


def output_of(module: nn.Module, shape: tuple[int, ...]) -> object:
    """What a module puts out for one image of `shape` (channels, height, width), in eval mode, on shapes alone."""
    return _counted(module, shape, "torch")[1]


@contextlib.contextmanager
def casts_forgotten() -> Iterator[None]:
    """Within it autocast keeps no cast of a weight.

    It keeps them by weight alone, to the end of the outermost region: of fake tensors, of runs without gradients, of
    values that are put back. None of those may be what the network computes with afterwards.
    """
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
        # A region within turns it on again.
        torch.clear_autocast_cache()


def _counted(module: nn.Module, shape: tuple[int, ...], convention: Convention) -> tuple[Counting, object]:
    # A forward may write to its buffers, which are small; the parameters need no copy.
    twin = copy.deepcopy(module, {id(part): part for part in module.parameters()})
    twin.eval()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), casts_forgotten(), fake_tensors_muted():
            return _run(twin, shape, convention)
    except NEEDS_VALUES:
        twin = copy.deepcopy(module)
        twin.eval()
        return _run(twin, shape, convention)


def _run(module: nn.Module, shape: tuple[int, ...], convention: Convention) -> tuple[Counting, object]:
    like = next((part for part in module.parameters() if part.is_floating_point()), torch.empty(0))
    counting = Counting(convention)
    with torch.no_grad(), warnings.catch_warnings(), scopes(module, counting.stack), counting:
        warnings.simplefilter("ignore")
        image = torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
        run = Scoped(module, counting.stack).run if isinstance(module, fx.GraphModule) else module
        return counting, run(image)


def _own(module: nn.Module, seen: set[nn.Parameter]) -> int:
    """The parameters of a module without its children that are not in `seen`, which they join."""
    fresh = [part for part in module.parameters(recurse=False) if part not in seen]
    seen.update(fresh)
    return sum(part.numel() for part in fresh)


def _sum(path: str, rows: Iterable[Row]) -> Row:
    listed = list(rows)
    return Row(
        path,
        sum(row.params for row in listed),
        sum(row.macs for row in listed),
        sum(row.activations for row in listed),
    )
