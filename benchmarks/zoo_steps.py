"""What the zoo does with a network: `examine` takes it through every step, `fill` measures some columns of its row."""

from __future__ import annotations

import copy
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import zoo_sources
from torch import Tensor, nn
from zoo_outputs import MOVES, difference, largest, let_through

from sesurgery import pipeline, planner
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint
from sesurgery.networks.export import convert, export
from sesurgery.networks.sources import surgeon_for
from sesurgery.planner import Plan
from sesurgery.spec import Spec
from sesurgery.surgeons.fx.inputs import tensors
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon
from sesurgery.workspace import RunDetails

Row = dict[str, Any]

PLACEMENTS = ("residual", "concat", "conv")
DRAWS = 12
TOLERANCE = 1e-5
EXPORT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Subject:
    """A network of the zoo and its plan; where the spec names a part, that part is operated on and called."""

    spec: Spec
    plan: Plan
    network: nn.Module

    def part(self, network: nn.Module) -> nn.Module:
        return surgeon_for(self.spec).part(network)

    def changed(self, network: nn.Module) -> nn.Module:
        return surgeon_for(self.spec).apply(network, self.plan)

    @property
    def image(self) -> Tensor:
        return torch.randn(2, *self.spec.input.shape, generator=torch.Generator().manual_seed(0))


def examine(model_id: str) -> Row:
    """Take one model through every step; what fails carries its reason."""
    started = time.perf_counter()
    row: Row = {"model": model_id}
    _tried(row, lambda: _steps(model_id, row))
    row["seconds"] = round(time.perf_counter() - started, 1)
    row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    return row


def fill(model_id: str, columns: Collection[str]) -> Row:
    """Measure single columns of a model: `keys`, `moves` (with what is measured beside it) and `sites_agree`."""
    row: Row = {"model": model_id}
    _tried(row, lambda: _columns(model_id, columns, row))
    return row


def _tried(row: Row, work: Callable[[], None]) -> None:
    """Do the work, which fills the row in; where it fails, the row says why."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        work()
    except SesurgeryError as error:
        row["reason"] = error.diagnostics[0].message[:300]
    except Exception as error:
        text = str(error).strip().splitlines()
        row["reason"] = f"{type(error).__name__}: {text[0] if text else ''}"[:300]


def _columns(model_id: str, columns: Collection[str], row: Row) -> None:
    subject = _planned(model_id, row)
    original = subject.network.eval()
    if "sites_agree" in columns:
        row["sites_agree"] = _sites_agree(subject, subject.part(copy.deepcopy(original)))
    if "moves" in columns:
        let_through(subject.part(original), subject.image, row)
    if "keys" in columns or "moves" in columns:
        changed = subject.changed(original).eval()
        row["keys"] = _keys_kept(original, changed)
    if "moves" in columns:
        _compare(subject, original, changed, row)


def _steps(model_id: str, row: Row) -> None:
    subject = _planned(model_id, row)
    row["plan"] = True
    original, image, part = subject.network.eval(), subject.image, subject.part
    let_through(part(original), image, row)
    if row["moves"] < MOVES:
        raise ValueError(f"another image moves its outputs by {row['moves']:.2g} of the largest alone")
    # A forward may keep what it computed (Ultralytics' anchors), and is another one then.
    unused = copy.deepcopy(original)
    changed = subject.changed(original).eval()
    row["apply"] = True
    row["keys"] = _keys_kept(original, changed)
    _compare(subject, original, changed, row)
    row["train"] = _train(part(changed), subject.plan, image)
    changed = subject.changed(unused)
    row["modes"] = _modes(changed) and difference(part(original), part(changed), image) <= TOLERANCE
    with tempfile.TemporaryDirectory() as name:
        _save_and_export(subject, changed, Path(name), row)
    row["sites_agree"] = _sites_agree(subject, part(unused))
    if not row["export"]:
        raise ValueError(f"the ONNX file differs by {row['export_difference']:.2g} of the largest output")


def _keys_kept(original: nn.Module, changed: nn.Module) -> bool:
    values = changed.state_dict()
    return all(key in values and torch.equal(values[key], value) for key, value in original.state_dict().items())


def _compare(subject: Subject, original: nn.Module, changed: nn.Module, row: Row) -> None:
    """Fill in `difference` and `equal`; raises where the outputs are not equal."""
    row["difference"] = difference(subject.part(original), subject.part(changed), subject.image)
    row["equal"] = row["difference"] <= TOLERANCE
    if not row["equal"]:
        raise ValueError(f"outputs differ by {row['difference']:.2g} of the largest")


def _modes(changed: nn.Module) -> bool:
    """Whether train() and eval() reach every module; it is in evaluation afterwards."""
    changed.train()
    reached = all(part.training for part in changed.modules())
    changed.eval()
    return reached and not any(part.training for part in changed.modules())


def _save_and_export(subject: Subject, changed: nn.Module, folder: Path, row: Row) -> None:
    """Fill in `replay` and `export`."""
    spec, part, image = subject.spec, subject.part, subject.image
    costs = dict.fromkeys(("params_before", "params_after", "macs_before", "macs_after"), 0)
    checkpoint.save(folder / "run", changed, spec, subject.plan, "zoo", RunDetails(**costs))
    again = checkpoint.read(folder / "run", pipeline.catalogs()).network
    row["replay"] = difference(part(changed), part(again), image) == 0
    # As the verb does it, of a network that has not run: one that has may keep the size of a batch (Ultralytics).
    unrun = checkpoint.read(folder / "run", pipeline.catalogs()).network
    report = export(part(unrun), spec.input.shape, folder / "net.onnx", spec.export)
    with torch.no_grad():
        row["export_difference"] = report.worst / largest(tensors(part(changed)(image)))
    row["export"] = row["export_difference"] <= EXPORT_TOLERANCE


def _planned(model_id: str, row: Row) -> Subject:
    """The first placement that finds sites, at the first size that the model takes."""
    last: SesurgeryError | None = None
    for size in zoo_sources.sizes(model_id):
        for placement in PLACEMENTS:
            spec = _spec(model_id, placement, size)
            try:
                planned = pipeline.plan(spec)
            except SesurgeryError as error:
                last = error
                if error.diagnostics[0].code == "SE201":
                    continue
                break
            network = planned.network.module
            assert network is not None
            row |= {"placement": placement, "size": size, "sites": len(planned.sites)}
            row["leaves"] = len(planned.network.leaves)
            return Subject(spec, planned.plan, network)
        if last is not None and last.diagnostics[0].code not in ("SE304",):
            break
    assert last is not None
    raise last


def _spec(model_id: str, placement: str, size: int) -> Spec:
    return pipeline.load_spec(
        {
            "version": 1,
            "name": model_id.partition(":")[2].replace("/", "_"),
            "model": zoo_sources.model_of(model_id),
            "input": {"shape": [3, size, size]},
            "surgery": [{"insert": {"block": "se", "init": "identity", "min_width": 8}, "at": placement}],
            # Fresh networks may put out thousands: the difference is judged relative to the outputs.
            "export": {"max_abs": 1e30},
        }
    )


def _train(changed: nn.Module, plan: Plan, image: Tensor) -> bool:
    """One training step; every block must get a finite gradient that is not zero, within a few draws of drop-paths."""
    changed.train()
    for part in changed.parameters():
        # Branches whose last norm starts at zero hide what lies before them.
        if not part.detach().any():
            nn.init.normal_(part, std=0.02)
    optimizer = torch.optim.SGD(changed.parameters(), lr=1e-3)
    blocks = {site.key: changed.get_submodule(site.module) for site in plan.sites}
    batch = torch.cat([image, image.flip(0) * 0.5])
    with torch.no_grad():
        plain = isinstance(changed(batch), dict)
    left = dict(blocks)
    for _ in range(DRAWS):
        outputs = [item for item in tensors(changed(batch)) if item.requires_grad]
        # A classifier's auxiliary heads are left out; a detector's outputs are all its own.
        outputs = outputs if plain else outputs[:1]
        sum((item * torch.randn_like(item)).sum() for item in outputs).backward()
        # A drop-path takes whole branches out, so a block may have to wait for its turn.
        left = {key: block for key, block in left.items() if not any(_moved(part) for part in block.parameters())}
        if not left:
            break
    for key, block in blocks.items():
        known = [part.grad for part in block.parameters() if part.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in known):
            raise ValueError(f"{key} got a gradient that is not finite")
    if left:
        raise ValueError(f"{', '.join(list(left)[:3])} got no gradient in {DRAWS} passes")
    optimizer.step()
    return True


def _moved(part: nn.Parameter) -> bool:
    return part.grad is not None and bool(part.grad.any())


def _sites_agree(subject: Subject, network: nn.Module) -> str:
    """Empty where the network's ONNX file offers the plan's sites; else what does not agree first."""
    spec, plan = subject.spec, subject.plan
    try:
        file = convert(network.eval(), spec.input.shape, spec.export)
        other = planner.plan(spec, OnnxSurgeon(spec.input.shape).view(file))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    ours, theirs = (
        [(site.key, site.channels, site.height, site.width) for site in found.sites] for found in (plan, other)
    )
    if ours == theirs or _by_module(ours, network) == _by_module(theirs, network):
        return ""
    only, missing = [site for site in theirs if site not in ours], [site for site in ours if site not in theirs]
    return f"{len(ours)} sites in torch, {len(theirs)} in ONNX; missing {missing[:1]}, instead {only[:1]}"


def _by_module(sites: Sequence[tuple[Any, ...]], network: nn.Module) -> list[tuple[object, ...]]:
    """Sites by the first name of their module: a shared module has several, and the exporter may take another one."""
    first: dict[object, str] = {}
    named = {path: first.setdefault(part, path) for path, part in network.named_modules(remove_duplicate=False)}
    scopes = [key.partition("/")[2].rpartition("[")[0] for key, *_ in sites]
    return sorted((named.get(scope, scope), *rest) for scope, (_, *rest) in zip(scopes, sites, strict=True))
