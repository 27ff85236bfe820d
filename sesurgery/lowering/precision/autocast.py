"""ModelOpt's AutoCast instead of `precision`: NVIDIA chooses the nodes, but gates stay fp32.

Optional: `pip install nvidia-modelopt[onnx]` pins versions of onnx and onnxruntime that are older than this program's,
so it is never a dependency. By default AutoCast calibrates on random numbers and computes the mean of every gate in
fp16; here it gets real samples, and the nodes that `precision` keeps in fp32 are excluded.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from sesurgery.diagnostics import fail, first_line
from sesurgery.lowering.base import Edit, Lowered, Pass
from sesurgery.lowering.precision.half import Precision
from sesurgery.lowering.precision.kept_fp32 import left
from sesurgery.lowering.precision.retyping import computes, prepare
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.opset import opset
from sesurgery.reasons import Reason

MODULE = "modelopt.onnx.autocast"
REMEDY = "pip install 'nvidia-modelopt[onnx]', which pins its own onnx; or leave `converter: sesurgery`"


@dataclass(frozen=True)
class AutoCast(Pass):
    """AutoCast with the nodes that `precision` would keep excluded, and ranges from `samples` if there are any."""

    tolerance: ClassVar[float] = Precision.tolerance

    precision: Precision
    samples: tuple[Mapping[str, NDArray[np.generic]], ...] = ()

    @staticmethod
    def require_installed() -> Any:
        """The module; raises SE603 with the reason where it cannot be imported."""
        try:
            return importlib.import_module(MODULE)
        except Exception as error:  # its many imports fail with different exceptions
            raise fail("SE603", f"AutoCast cannot be imported here: {first_line(error)}", REMEDY) from error

    def requires(self, model: onnx.ModelProto) -> str | None:
        return self.precision.requires(model)

    def apply(self, model: onnx.ModelProto) -> Lowered:
        autocast = self.require_installed()
        copy = self.precision.converted(model)
        prepare(copy.graph)
        flow = Dataflow(copy)
        kept = self.precision.kept_nodes(flow, opset(copy))
        names = [node.name for node in flow.nodes if node.output and node.output[0] in kept]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(copy, path)
            try:
                made = autocast.convert_to_mixed_precision(
                    onnx_path=str(path),
                    low_precision_type=self.precision.target,
                    nodes_to_exclude=[f"^{re.escape(name)}$" for name in names],
                    keep_io_types=self.precision.io == "keep",
                    calibration_data=self._data(Path(folder)),
                )
            except Exception as error:  # it raises many kinds of exceptions
                raise fail(
                    "SE602", f"AutoCast cannot convert the model: {error}", "leave `converter: sesurgery`"
                ) from error
        now = Dataflow(made)
        element = self.precision.half.element
        edits = tuple(
            self._verdict(node, now.dtype(node.output[0]) == element, kept.get(node.output[0]))
            for node in flow.nodes
            if computes(node, flow)
        )
        return Lowered(made, edits)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        now = Dataflow(after)
        gates = gate_branches(now)
        for node in now.nodes:
            # The Cast where a gate meets the map belongs to the branch.
            if (
                node.op_type != "Cast"
                and node.output[0] in gates
                and now.dtype(node.output[0]) == self.precision.half.element
            ):
                return f"{node.op_type} {node.name!r} of a gate computes in {self.precision.target}"
        return None

    def _verdict(self, node: NodeProto, changed: bool, reason: Reason | None) -> Edit:
        if changed:
            return Edit(node.name, f"computes in {self.precision.target}", changed=True, kind="computed")
        return left(reason or Reason("autocast", node.name, "AutoCast left it in fp32"))

    def _data(self, folder: Path) -> str | None:
        if not self.samples:
            return None
        # One feed with all samples: AutoCast runs the network once.
        path = folder / "samples.npz"
        arrays: dict[str, Any] = {
            name: np.concatenate([feeds[name] for feeds in self.samples]) for name in self.samples[0]
        }
        np.savez(path, **arrays)
        return str(path)
