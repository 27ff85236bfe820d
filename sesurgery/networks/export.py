"""PyTorch to ONNX by torch's own exporter, and the check that both compute the same on inputs it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from sesurgery import temporaries
from sesurgery.diagnostics import fail, first_line
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph.zero_padding import keep_zeros
from sesurgery.spec.export import Export
from sesurgery.surgeons.exporting import exportable_attention, quiet_exporter
from sesurgery.surgeons.fx.inputs import tensors

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


def export(network: nn.Module, shape: tuple[int, ...], target: Path, options: Export) -> ExportReport:
    """Write `target` (input [batch, C, H, W], output logits) and compare it with the network.

    Above 2 GiB the weights stand beside it in NAME.onnx.data. Raises SE601, and leaves nothing behind, where the
    exporter fails or the file computes something else.
    """
    network = _evaluating(network)
    program = _program(network, shape, options)
    if _size(program) > onnx_io.LIMIT:
        return _export_large(network, program, shape, target, options)
    model = _finished(program.model_proto)
    differences = _proved(network, model, shape, options)
    onnx_io.save(model, target)
    return ExportReport(len(model.graph.node), model.opset_import[0].version, differences)


def convert(network: nn.Module, shape: tuple[int, ...], options: Export) -> onnx.ModelProto:
    """What `export` writes for a network of less than 2 GiB, compared with nothing; raises SE601."""
    return _finished(_program(_evaluating(network), shape, options).model_proto)


def _evaluating(network: nn.Module) -> nn.Module:
    network.eval()
    return network.cpu()


def _program(network: nn.Module, shape: tuple[int, ...], options: Export) -> torch.onnx.ONNXProgram:
    example = torch.zeros(2, *shape)
    try:
        with quiet_exporter(), exportable_attention():
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
        raise fail("SE601", f"torch cannot export the network: {_cause(error)}") from error
    if program is None:
        raise fail("SE601", "torch's exporter gave no network")
    return program


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first; the exporter's own words only name the step it was at."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _size(program: torch.onnx.ONNXProgram) -> int:
    return sum(
        value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value is not None
    )


def _export_large(
    network: nn.Module, program: torch.onnx.ONNXProgram, shape: tuple[int, ...], target: Path, options: Export
) -> ExportReport:
    """Write the weights from where they are to a file beside, without a second copy of them in memory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporaries.folder(target) as folder:
        written = folder / target.name
        with quiet_exporter():
            program.save(written, external_data=True)
        model = _finished(onnx.load(written, load_external_data=False))
        written.write_bytes(model.SerializeToString())
        differences = _proved(network, written, shape, options)
        onnx_io.check(written)
        onnx_io.move(written, target)
    return ExportReport(len(model.graph.node), model.opset_import[0].version, differences)


def _proved(
    network: nn.Module, model: onnx.ModelProto | Path, shape: tuple[int, ...], options: Export
) -> dict[int, float]:
    found = compare(network, model, shape, options.check_batches)
    for each in (each for outputs in found.values() for each in outputs):
        # A difference may be NaN.
        if not each.difference <= options.max_abs * each.unit:
            allowed = f"{options.max_abs * each.unit:.3g}"
            where = f" where its largest value is {each.unit:.3g}" if each.unit > 1 else ""
            text = f"the exported network differs from the model by {each.difference:.3g}{where}, allowed are {allowed}"
            raise fail("SE601", text, "report this network, or raise 'export: max_abs' knowingly")
    return {batch: max(each.difference for each in outputs) for batch, outputs in found.items()}


@dataclass(frozen=True)
class OutputDifference:
    """The largest absolute difference of an output's values, and the model's largest absolute value, at least 1.

    fp32 has 24 bits for a value, however large it is: what is allowed is allowed in units of that.
    """

    difference: float
    unit: float = 1.0


def compare(
    network: nn.Module, model: onnx.ModelProto | Path, shape: tuple[int, ...], batches: tuple[int, ...]
) -> dict[int, list[OutputDifference]]:
    """How far each output is off at each batch size, on noise that neither has seen.

    `model` is a path where the weights stand outside the file. Raises SE601 if one of the two does not run at a
    batch size.
    """
    from sesurgery.onnxgraph.sessions import session as open_session

    session = open_session(model)
    generator = torch.Generator().manual_seed(1)
    found = {}
    for batch in batches:
        image = torch.randn(batch, *shape, generator=generator)
        try:
            with torch.inference_mode():
                expected = [value.numpy() for value in tensors(network(image))]
            given = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        except Exception as error:
            # A forward that knows the size of its example's batch exports without complaint.
            text = f"the network does not take a batch of {batch}: {first_line(error)}"
            raise fail("SE601", text, "its forward must not depend on the size of the batch") from error
        if not expected or [value.shape for value in expected] != [value.shape for value in given]:
            found[batch] = [OutputDifference(float("inf"))]
        else:
            found[batch] = list(map(_difference, expected, given))
    return found


def _difference(own: np.ndarray, other: np.ndarray) -> OutputDifference:
    largest = float(np.abs(own).max(initial=0))
    difference = float(np.abs(own - other).max(initial=0))
    return OutputDifference(difference, max(1.0, largest) if np.isfinite(largest) else 1.0)


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with the scopes of its nodes, without the source paths and stack traces of who exported it."""
    for node in model.graph.node:
        scopes = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)
        node.doc_string = ""
    return model


def _finished(model: onnx.ModelProto) -> onnx.ModelProto:
    model = _stripped(model)
    keep_zeros(model)
    return model
