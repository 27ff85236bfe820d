"""OpenVINO on the CPU: an engine is OpenVINO's own file pair, NAME.xml with the graph and NAME.bin with the weights.

The pair, not the blob of `export_model`: a blob takes its precision from the importing process, fits one version of
OpenVINO, and Triton's OpenVINO backend reads the pair. Compiling happens at load and is the same on every load.

Left to itself the plugin computes an fp32 graph in bf16 wherever the processor has bf16 (AMX, AVX512_BF16), and takes
a wish for f16 as one for bf16. So the precision to compute in is written into the .xml, set at every load, and proved:
a build reads back what every convolution of the compiled network runs in.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesurgery import temporaries
from sesurgery.artifacts import cpu_name
from sesurgery.backends.base import (
    Array,
    Backend,
    BuildOptions,
    BuildReport,
    Capability,
    LayerRun,
    Progress,
    Runner,
)
from sesurgery.backends.openvino_engine.runner import Requests
from sesurgery.backends.openvino_engine.shapes import set_ranges
from sesurgery.backends.openvino_engine.traffic import moved
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.spec.bounds import Threads
from sesurgery.spec.engines import Precision

DEVICE = "CPU"
INSTALL = "pip install 'sesurgery[openvino]'"
PRECISION = ["sesurgery", "inference_precision"]
"""Where the .xml holds the precision to compute in."""
NEEDED = {"bf16": "BF16", "f16": "FP16"}
"""What OPTIMIZATION_CAPABILITIES must list for a hint to be taken at its word."""
WORDS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
CONVOLUTIONS = ("Convolution", "Deconvolution")


@dataclass(frozen=True)
class OpenVINO(Backend):
    """OpenVINO 2025 and later, on the CPU; `threads` is how many an engine runs with where the caller names none."""

    suffix = ".xml"
    precisions = ("fp32", "fp16", "bf16", "int8")
    uniform = ("fp16", "bf16")
    # docs/free_se.md has what they bring; pools and means are one kernel to it.
    passes = ("linear_to_conv", "hard_sigmoid", "squeeze_hoist")
    lowered = ("fp32", "bf16")

    threads: Threads | None = None

    def probe(self) -> Capability:
        if importlib.util.find_spec("openvino") is None:
            reason = "OpenVINO is not installed"
            return Capability(None, builds=reason, runs=reason, remedy=INSTALL)
        version = importlib.metadata.version("openvino")
        try:
            abilities = capabilities()
        except Exception as error:  # a missing library or plugin: ImportError, OSError, RuntimeError
            reason = f"OpenVINO is installed but has no {DEVICE} device: {_words(error)}"
            return Capability(version, builds=reason, runs=reason, remedy=INSTALL)
        return Capability(version, builds=None, runs=None, notes=(f"the processor has {', '.join(sorted(abilities))}",))

    def beside(self, engine: Path) -> tuple[Path, ...]:
        return (_weights(engine),)

    def build(self, onnx: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildReport:
        ability = self.probe()
        if ability.builds is not None:
            raise fail("SE603", f"OpenVINO cannot build here: {ability.builds}", ability.remedy)
        from sesurgery.backends.inputs import onnx_file as _source

        source = _source.read(onnx)
        _source.prove_precision(options.precision, source.convolutions(), str(onnx))
        hint, notes = _hint(options.precision)
        tell = progress or (lambda what, done, total: None)
        started = time.perf_counter()
        tell("converting", 0, 2)
        out.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own: OpenVINO chooses the name of the second file.
        with temporaries.folder(out) as folder:
            made = folder / out.name
            try:
                model = core().read_model(onnx)
                set_ranges(model, options)
                model.set_rt_info(hint, PRECISION)
                # By default it would write the weights in half precision.
                _openvino().save_model(model, made, compress_to_fp16=False)
                tell("compiling", 1, 2)
                compiled = compile_network(made, hint, options.threads or self.threads)
                convolutions = computed_in(compiled)
            except SesurgeryError:
                raise
            except Exception as error:  # RuntimeError and its own kinds, which share no base class
                raise fail("SE604", f"OpenVINO cannot build {onnx}: {_words(error)}") from error
            _prove(options.precision, hint, convolutions, str(onnx))
            # The weights first: an .xml that is there has its .bin.
            _weights(made).replace(_weights(out))
            made.replace(out)
        tell("compiling", 2, 2)
        notes = (*_source.fixed_batch_notes(source, options.batch), *notes)
        return BuildReport(time.perf_counter() - started, convolutions, cpu_name(), notes)

    def layer_runs(
        self, engine: Path, feeds: Mapping[str, Array], runs: int, threads: int | None = None
    ) -> Mapping[str, LayerRun]:
        """Medians of runs with the plugin's counters on; bytes by the runtime graph."""
        model = core().read_model(engine)
        hint = model.get_rt_info(PRECISION).astype(str) if model.has_rt_info(PRECISION) else "f32"
        compiled = compile_network(model, hint, threads or self.threads, PERF_COUNT=True)
        sizes = moved(compiled, max(map(len, feeds.values())))
        request = compiled.create_infer_request()
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(runs):
            request.infer(dict(feeds))
            for layer in request.get_profiling_info():
                if layer.real_time.total_seconds() > 0:
                    times[layer.node_name].append(layer.real_time.total_seconds())
        return {name: LayerRun(statistics.median(found), sizes.get(name)) for name, found in times.items()}

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        ability = self.probe()
        if ability.runs is not None:
            raise fail("SE603", f"OpenVINO cannot run engines here: {ability.runs}", ability.remedy)
        for path in (engine, _weights(engine)):
            if not path.is_file():
                raise fail("SE402", f"{path} is not there", "build the engine first; it is two files, .xml and .bin")
        try:
            model = core().read_model(engine)
        except Exception as error:
            text = f"OpenVINO cannot load {engine}: {_words(error)}"
            raise fail("SE603", text, "build the engine again here") from error
        # Without a word in the file: the one precision that cannot change an answer.
        hint = model.get_rt_info(PRECISION).astype(str) if model.has_rt_info(PRECISION) else "f32"
        if NEEDED.get(hint, "FP32") not in capabilities():
            raise fail("SE603", f"{engine} computes in {hint}, which this processor does not have", "build fp32")
        try:
            return Requests(compile_network(model, hint, threads or self.threads))
        except RuntimeError as error:
            text = f"OpenVINO cannot load {engine}: {_words(error)}"
            raise fail("SE603", text, "build the engine again here") from error


def _openvino() -> Any:
    return importlib.import_module("openvino")


def core() -> Any:
    """OpenVINO's own Core."""
    return _openvino().Core()


def capabilities() -> frozenset[str]:
    """What the CPU plugin computes in on this processor: FP32, BF16, INT8 ..."""
    return frozenset(core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))


def _weights(engine: Path) -> Path:
    return engine.with_suffix(".bin")


def _hint(precision: Precision) -> tuple[str, tuple[str, ...]]:
    """The precision to ask the plugin for, and what must be said of it."""
    abilities = capabilities()
    if precision == "bf16":
        if "BF16" not in abilities:
            text = f"this processor has no bf16 (it has {', '.join(sorted(abilities))})"
            raise fail("SE603", text, "build fp32, or build where the processor has AVX512_BF16 or AMX")
        return "bf16", ("every layer that can computes in bf16, the gates too: the plugin has one precision for all",)
    if precision == "fp16":
        if "FP16" in abilities:
            return "f16", ()
        # Asked for f16, it would compute in bf16 where there is bf16, and not say so.
        return "f32", ("this processor has no fp16: all of it computes in fp32, from weights rounded to fp16",)
    return "f32", ()


def compile_network(model: Any, hint: str, threads: int | None, **more: object) -> Any:
    """The network compiled for the CPU, with the precision that `hint` names."""
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", **more}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return core().compile_model(model, DEVICE, config)


def computed_in(compiled: Any) -> dict[str, int]:
    """How many convolutions of the compiled network compute in each precision, as the network itself says."""
    kinds = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    found = (info["runtimePrecision"].astype(str) for info in kinds if _is_convolution(info))
    return dict(Counter(WORDS.get(name, name) for name in found))


def _is_convolution(info: Any) -> bool:
    return "layerType" in info and info["layerType"].astype(str) in CONVOLUTIONS


def _prove(precision: Precision, hint: str, convolutions: Mapping[str, int], where: str) -> None:
    """Raises SE605 unless the compiled network computes as asked; fp16 may be fp32, of which the notes speak."""
    wanted = "int8" if precision == "int8" else WORDS[hint]
    wrong = set(convolutions) - {"fp32"} if precision == "fp32" else not convolutions.get(wanted)
    if wrong:
        found = ", ".join(f"{count} {name}" for name, count in sorted(convolutions.items())) or "none at all"
        text = f"OpenVINO compiled {where} to no network that computes in {wanted} (convolutions: {found})"
        raise fail("SE605", text, "build another precision, or report this network")


def _words(error: Exception) -> str:
    """What an OpenVINO error says, in one line; lines that only name its own source files are left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join(telling or lines) or type(error).__name__
