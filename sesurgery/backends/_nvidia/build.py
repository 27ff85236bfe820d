"""ONNX file -> serialised engine, one path for `tensorrt` 10.12 to 11.x and `tensorrt_rtx`.

Both are strongly typed: the types in the ONNX file are the types of the engine, and no flag changes them. So precision
is a property of the file, and it is proved on the parsed network before anything is built.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sesurgery.backends import _source
from sesurgery.backends._nvidia import messages
from sesurgery.backends.base import BatchRange, BuildOptions, Progress
from sesurgery.diagnostics import SesurgeryError, fail

ONNX_NAMES = {"HALF": "FLOAT16", "BF16": "BFLOAT16"}
"""TensorRT's names of types where ONNX has others."""
TIMING_ITERATIONS = 8
"""trtexec's choice; the API's default of 1 picks kernels by a single noisy run."""


@dataclass(frozen=True)
class Built:
    """A serialised engine (a buffer), the convolution types of the parsed network, and the builder's warnings."""

    plan: Any
    convolutions: dict[str, int]
    notes: tuple[str, ...]


class EngineBuilder:
    """One build. `capabilities` are names of trt.ComputeCapability to build for; empty leaves the builder's choice.

    `detailed` makes it list the layers it compiled in `log.layers`.
    """

    def __init__(
        self, trt: ModuleType, name: str, capabilities: tuple[str, ...] = (), *, detailed: bool = False
    ) -> None:
        self.trt = trt
        self.name = name
        self.capabilities = capabilities
        self.detailed = detailed
        self.log = messages.collector(trt)
        self.builder = trt.Builder(self.log)

    def build(self, source: _source.Source, options: BuildOptions, progress: Progress | None) -> Built:
        # The parser holds on to nothing of the network, but the network holds weights that the parser read.
        network, parser = self._parse(source)
        convolutions = self._convolutions(network)
        _source.prove_precision(options.precision, convolutions, f"the network {self.name} read from {source.path}")
        self._check_outputs(network, source)
        config = self._configure(network, options)
        reporter = messages.reporter(self.trt, progress) if progress is not None else None
        if reporter is not None:
            config.progress_monitor = reporter
        plan = self.builder.build_serialized_network(network, config)
        del parser
        if reporter is not None and reporter.raised is not None:
            raise reporter.raised
        if plan is None:
            words = "; ".join(self.log.errors) or "it gave no reason"
            raise fail("SE604", f"{self.name} cannot build {source.path}: {words}")
        return Built(plan, convolutions, tuple(dict.fromkeys(self.log.warnings)))

    def _parse(self, source: _source.Source) -> tuple[Any, Any]:
        # Needed on 10.x, ignored on 11.x.
        flags = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self.builder.create_network(flags)
        parser = self.trt.OnnxParser(network, self.log)
        # From the path: it finds weights outside the file.
        parsed = parser.parse_from_file(str(source.path))
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        # The parser answers True to what it does not understand at all, and leaves the network empty.
        if not parsed or errors or network.num_outputs == 0:
            raise SesurgeryError(messages.parser_mistakes(self.name, source, errors, self.log.errors))
        return network, parser

    def _convolutions(self, network: Any) -> dict[str, int]:
        layers = (network.get_layer(index) for index in range(network.num_layers))
        # A transposed convolution is one too: lowering writes some convolutions that way.
        kinds = (self.trt.LayerType.CONVOLUTION, self.trt.LayerType.DECONVOLUTION)
        types = (_onnx_name(layer.get_output(0)) for layer in layers if layer.type in kinds)
        return dict(Counter(_source.word(dtype) for dtype in types))

    def _check_outputs(self, network: Any, source: _source.Source) -> None:
        """The parser takes the types it computes for the ones the file declares; a reader of the output would not."""
        declared = source.output_types()
        for output in (network.get_output(index) for index in range(network.num_outputs)):
            found = _onnx_name(output)
            if declared.get(output.name, found) != found:
                raise fail("SE604", f"output {output.name!r} is declared {declared[output.name]}, but built as {found}")

    def _configure(self, network: Any, options: BuildOptions) -> Any:
        config = self.builder.create_builder_config()
        # On by default: it would make an "fp32" engine drift from the trained model with 10 bits of mantissa.
        config.clear_flag(self.trt.BuilderFlag.TF32)
        if hasattr(config, "avg_timing_iterations"):
            config.avg_timing_iterations = TIMING_ITERATIONS
        if self.detailed:
            config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED
        if options.threads is not None:
            self.builder.max_threads = options.threads
        if self.capabilities:
            config.num_compute_capabilities = len(self.capabilities)
            for index, capability in enumerate(self.capabilities):
                if not config.set_compute_capability(getattr(self.trt.ComputeCapability, capability), index):
                    raise fail("SE604", f"{self.name} cannot build for {capability}: {'; '.join(self.log.errors)}")
        self._add_profile(config, network, options.batch)
        return config

    def _add_profile(self, config: Any, network: Any, batch: BatchRange) -> None:
        """One profile over the batch; set_shape takes wrong names and ranges without a word, so all is checked here."""
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
        for tensor in dynamic:
            if -1 in tuple(tensor.shape)[1:]:
                raise fail(
                    "SE604",
                    f"input {tensor.name!r} has shape {list(tensor.shape)}: only the batch may be dynamic",
                    "export with fixed height and width",
                )
        if not dynamic:
            return
        profile = self.builder.create_optimization_profile()
        for tensor in dynamic:
            rest = tuple(tensor.shape)[1:]
            sizes = (batch.minimum, batch.optimum, batch.maximum)
            profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
        if not profile or config.add_optimization_profile(profile) == -1:
            raise fail("SE604", f"{self.name} rejects the batch range {batch}: {'; '.join(self.log.errors)}")


def _onnx_name(tensor: Any) -> str:
    return str(ONNX_NAMES.get(tensor.dtype.name, tensor.dtype.name))
