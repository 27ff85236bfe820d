"""A run's blocks as constants: how nearly constant each gate is, and what taking it for one is predicted to do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.pipeline.build_engine import calibration
from sesurgery.pipeline.export import export
from sesurgery.pipeline.gates.gates import block_modules
from sesurgery.pipeline.specs import catalogs
from sesurgery.spec.engines import Calibration
from sesurgery.training.data import data_of
from sesurgery.training.data.base import Data
from sesurgery.verification.constant_blocks import ConstantBlocks, Samples, middle
from sesurgery.verification.folding import Answers, Prediction, predicted
from sesurgery.verification.gate_values import gate_values
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.origin import Origin

SAMPLES = 1000
"""Training samples on which flips are counted: where none of so many flips, their share is below 0.4 %."""


@dataclass(frozen=True)
class Constants:
    """A run, its file, and its blocks with the constants that may stand for their gates.

    `deciding` names the samples on which the constants were found, those of the pass `constant_gates`. `within` is each
    block's largest distance from them there. Flips are counted on `training`, `apart` from those that decided unless
    there are no others. `left` are blocks for which no constant per channel can stand.
    """

    run: Run
    exported: Path
    data: Data
    network: ConstantBlocks
    within: dict[str, float]
    deciding: str
    training: Samples
    apart: bool
    left: tuple[str, ...]

    @property
    def held_out(self) -> Samples:
        return Samples(self.data.held_out.images, range(len(self.data.held_out)))

    @cached_property
    def _before(self) -> Answers:
        return self.network.answers(self.training)

    def prediction(self, keys: Collection[str]) -> Prediction:
        """What taking these blocks together for constants is predicted to do to the held-out samples."""
        return predicted(self._before, self.network.answers(self.training, keys), len(self.held_out))


def constants(folder: Path, workspace: Workspace, wanted: Calibration) -> Constants:
    """The constants of a run, found as the pass finds them; raises SE402 if the run has no block of ours."""
    run = checkpoint.read(folder, catalogs())
    modules, data = block_modules(run), data_of(run.spec)
    exported = export(folder, workspace, again=False).path
    given = calibration.samples(onnx_io.load(exported), Origin.read(exported), wanted)
    if given is None:
        raise fail("SE402", f"the run that {exported.as_posix()} came from is not there", "export the run again")
    feeds, deciding = given
    images = torch.from_numpy(np.concatenate([array for feed in feeds for array in feed.values()]))
    seen = gate_values(run.network, modules, Samples(images, range(len(images))).batches())
    found = {key: middle(gates) for key, gates in seen.items() if gates is not None}
    # The first ones have decided.
    others = calibration.order(len(data.train))[0 if wanted.file else wanted.samples :][:SAMPLES].tolist()
    return Constants(
        run=run,
        exported=exported,
        data=data,
        network=ConstantBlocks(run.network, modules, {key: constant for key, (constant, _) in found.items()}),
        within={key: distance for key, (_, distance) in found.items()},
        deciding=deciding,
        training=Samples(data.train.images, others) if others else Samples(images, range(len(images))),
        apart=bool(others),
        left=tuple(key for key, gates in seen.items() if gates is None),
    )


def needless(folder: Path, workspace: Workspace, share: float) -> dict[str, Prediction]:
    """The blocks of which a constant is predicted to flip at most this share of answers, each with its prediction.

    What is compared is the upper end of the share's interval.
    """
    found = constants(folder, workspace, Calibration())
    told = {key: found.prediction([key]) for key in found.within}
    return {key: prediction for key, prediction in told.items() if prediction.flips.high <= share}
