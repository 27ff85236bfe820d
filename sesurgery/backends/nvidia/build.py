"""ONNX file -> serialised engine, one path for `tensorrt` 10.12 to 11.x and `tensorrt_rtx`.

Both are strongly typed: the types in the ONNX file are the types of the engine, and no flag changes them. So precision
is a property of the file, and it is proved on the parsed network before anything is built.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sesurgery.backends.base import BuildOptions, Progress
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.nvidia import messages, serialising
from sesurgery.backends.nvidia.ranges import add_profiles, ranges
from sesurgery.backends.nvidia.settings import Settings, configure
from sesurgery.backends.nvidia.timing_cache import TimingCache
from sesurgery.diagnostics import SesurgeryError, fail

ONNX_NAMES = {"HALF": "FLOAT16", "BF16": "BFLOAT16"}
"""TensorRT's names of types where ONNX has others."""


@dataclass(frozen=True)
class BuilderFindings:
    """What was built: the convolution types of the parsed network, and what the builder and its tools warned of."""

    convolutions: dict[str, int]
    notes: tuple[str, ...]


class EngineBuilder:
    """One build; with `settings.detailed` the layers that it compiled are in `log.layers` afterwards."""

    def __init__(
        self, trt: ModuleType, name: str, settings: Settings | None = None, cache: TimingCache | None = None
    ) -> None:
        self.trt = trt
        self.name = name
        self.settings = settings or Settings()
        self.cache = cache
        self.log = messages.listen(trt)
        self.builder = trt.Builder(self.log.logger)

    def build(
        self, source: _source.OnnxFile, options: BuildOptions, progress: Progress | None, out: Path | None = None
    ) -> BuilderFindings:
        """Build, and write the plan to `out` if there is one. An interruption ends the build and is raised then."""
        # The parser holds on to nothing of the network, but the network holds weights that the parser read.
        network, parser = self.parse(source)
        convolutions = self._convolutions(network)
        _source.prove_precision(options.precision, convolutions, f"the network {self.name} read from {source.path}")
        self._check_outputs(network, source)
        chosen = ranges(network, options.profiles, options.batch)
        config = configure(self.trt, self.name, self.builder, self.settings, self.log)
        if options.threads is not None:
            self.builder.max_threads = options.threads
        add_profiles(self.builder, config, self.name, chosen, self.log)
        unused = self.cache.attach(config, self.log) if self.cache is not None else None
        self.serialise(network, config, source, progress, out)
        del parser
        if self.cache is not None:
            self.cache.keep(self.trt, config)
        return BuilderFindings(convolutions, tuple(dict.fromkeys((*self.log.warnings, *filter(None, [unused])))))

    def serialise(
        self, network: Any, config: Any, source: _source.OnnxFile, progress: Progress | None, out: Path | None
    ) -> None:
        """Run the builder, and write its plan to `out` if there is one; raises SE604 with its own words."""
        # Set even where nobody listens: it is the way to cancel a build.
        reporter = messages.reporter(self.trt, progress)
        config.progress_monitor = reporter
        writer = serialising.writer(self.trt, out) if out is not None and serialising.can_stream(self.trt) else None
        try:
            if writer is not None:
                done = serialising.interruptible(
                    lambda: self.builder.build_serialized_network_to_stream(network, config, writer), reporter.cancel
                )
            else:
                plan = serialising.interruptible(
                    lambda: self.builder.build_serialized_network(network, config), reporter.cancel
                )
                done = plan is not None
                if done and out is not None:
                    out.write_bytes(plan)
        finally:
            if writer is not None:
                writer.close()
        for raised in (reporter.raised, writer.raised if writer is not None else None):
            if raised is not None:
                raise raised
        if not done or (writer is not None and not writer.written):
            words = "; ".join(self.log.errors) or "it gave no reason"
            text = f"{self.name} cannot build {source.path}: {messages.located(words, source)}"
            raise fail("SE604", text, messages.advice(words) if self.settings.takes_weights else None)

    def parse(self, source: _source.OnnxFile) -> tuple[Any, Any]:
        """The network as the library reads it, and the parser, which must outlive the build."""
        # Needed on 10.x, ignored on 11.x.
        flags = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self.builder.create_network(flags)
        parser = self.trt.OnnxParser(network, self.log.logger)
        # From the path: it finds weights outside the file.
        parsed = parser.parse_from_file(str(source.path))
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        # The parser answers True to what it does not understand at all, and leaves the network empty.
        if not parsed or errors or network.num_outputs == 0:
            raise SesurgeryError(messages.parser_mistakes(self.name, source, errors, self.log.errors))
        return network, parser

    def _convolutions(self, network: Any) -> dict[str, int]:
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        kind = self.trt.LayerType
        # What a convolution of quantised numbers computes in shows on its input alone.
        quantised = {layer.get_output(0).name for layer in layers if layer.type == kind.DEQUANTIZE}
        # A transposed convolution is one too: lowering writes some convolutions that way.
        convolutions = [layer for layer in layers if layer.type in (kind.CONVOLUTION, kind.DECONVOLUTION)]
        types = (
            "INT8" if layer.get_input(0).name in quantised else _onnx_name(layer.get_output(0))
            for layer in convolutions
        )
        return dict(Counter(_source.word(dtype) for dtype in types))

    def _check_outputs(self, network: Any, source: _source.OnnxFile) -> None:
        """The parser takes the types it computes for the ones the file declares; a reader of the output would not."""
        declared = source.output_types()
        for output in (network.get_output(index) for index in range(network.num_outputs)):
            found = _onnx_name(output)
            if declared.get(output.name, found) != found:
                raise fail("SE604", f"output {output.name!r} is declared {declared[output.name]}, but built as {found}")


def _onnx_name(tensor: Any) -> str:
    return str(ONNX_NAMES.get(tensor.dtype.name, tensor.dtype.name))
