"""PyTorch to ONNX by torch's own exporter, and the check that both compute the same on inputs it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from sesurgery.diagnostics import fail
from sesurgery.models import onnx_io
from sesurgery.spec.model import Export
from sesurgery.surgeons.exporting import quiet_exporter
from sesurgery.surgeons.faces import TwoFaced

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class ExportReport:
    """Largest absolute difference between file and model at each batch size that was compared."""

    nodes: int
    opset: int
    differences: dict[int, float]

    @property
    def worst(self) -> float:
        return max(self.differences.values())


def export(network: nn.Module, shape: tuple[int, int, int], target: Path, options: Export) -> ExportReport:
    """Write `target` (input [batch, C, H, W], output logits) and compare it with the network.

    Raises SE601, and leaves nothing behind, where the exporter fails or the file computes something else.
    """
    network = network.eval().cpu()
    if isinstance(network, TwoFaced):
        # Only evaluation is exported; torch.export does not look into modules that are not registered.
        network = network.faces[0].eval()
    model = _convert(network, shape, options)
    # The exporter writes the building machine's source paths and stack traces into every node.
    _strip(model)
    differences = compare(network, model, shape, options.check_batches)
    worst = max(differences.values())
    if not worst <= options.max_abs:
        text = f"the exported network differs from the model by {worst:.3g}, allowed are {options.max_abs:.3g}"
        raise fail("SE601", text, "report this network, or raise 'export: max_abs' knowingly")
    onnx_io.save(model, target)
    return ExportReport(len(model.graph.node), model.opset_import[0].version, differences)


def _convert(network: nn.Module, shape: tuple[int, int, int], options: Export) -> onnx.ModelProto:
    example = torch.zeros(2, *shape)
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                optimize=True,
                opset_version=options.opset,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
            )
    except Exception as error:
        text = str(error).strip().splitlines()
        raise fail("SE601", f"torch cannot export the network: {text[0] if text else type(error).__name__}") from error
    if program is None:
        raise fail("SE601", "torch's exporter gave no network")
    return program.model_proto


def compare(
    network: nn.Module, model: onnx.ModelProto, shape: tuple[int, int, int], batches: tuple[int, ...]
) -> dict[int, float]:
    """Largest absolute difference of the outputs at each batch size, on noise that neither has seen.

    Raises SE601 where one of the two does not run at a batch size.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    found = {}
    for batch in batches:
        image = torch.randn(batch, *shape, generator=generator)
        try:
            with torch.inference_mode():
                expected = network(image).numpy()
            given = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
        except Exception as error:
            # A forward that knows the size of its example's batch exports without complaint.
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            text = f"the network does not take a batch of {batch}: {why}"
            raise fail("SE601", text, "its forward must not depend on the size of the batch") from error
        found[batch] = float(np.abs(expected - given).max()) if expected.shape == given.shape else float("inf")
    return found


def _strip(model: onnx.ModelProto) -> None:
    """Keep the scopes of nodes and drop what only tells about the machine that exported."""
    for node in model.graph.node:
        scopes = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)
        node.doc_string = ""
