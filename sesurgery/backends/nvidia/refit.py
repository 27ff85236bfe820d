"""Weights of an ONNX file into a deserialised engine, by the library's own parser, and the engine to a file with them.

The parser goes by the weights' names; whether a file is one for the engine at all is for `weights` to say. Errors come
from the parser and from the logger: an error recorder written in Python crashes the interpreter at exit.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import onnx

from sesurgery.backends.inputs.onnx_network import named
from sesurgery.diagnostics import fail

if TYPE_CHECKING:
    from sesurgery.backends.nvidia.loaded import Loaded


def put_weights(trt: ModuleType, loaded: Loaded, source: Path) -> None:
    """Give a deserialised engine the weights of a file, before anything runs on it.

    Raises SE603 if it was not built for that, SE604 if the library does not take them, with its words and the
    names of the weights that are missing. After an error the engine may hold some of them, and must not run.
    """
    if not loaded.engine.refittable:
        text = f"the engine was not built to take weights: {loaded.name} cannot refit it"
        raise fail("SE603", text, "build it with -O refit=true, or -O stripped=true")
    refitter: Any = None
    parser: Any = None
    try:
        try:
            refitter = trt.Refitter(loaded.engine, loaded.logger)
        except TypeError:  # so the bindings say that there is none
            loaded.require(False, "refit the engine")
        parser = trt.OnnxParserRefitter(refitter, loaded.logger)
        read = parser.refit_from_file(str(source))
        words = _errors(parser)
        missing = sorted(filter(None, refitter.get_missing_weights()))
        if not read or words:
            missing = sorted({*missing, *_absent(refitter.get_all_weights(), source)})
        if not read or words or missing:
            said = [*words, *loaded.recent_errors(), *([f"missing: {named(missing)}"] if missing else [])]
            reason = "; ".join(said) or "no reason given"
            raise fail("SE604", f"{loaded.name} does not take the weights of {source}: {reason}")
        loaded.require(refitter.refit_cuda_engine(), f"take the weights of {source}")
    finally:
        # An error holds on to this frame, and these to the engine, which must die before the GPU is given back.
        parser = None
        refitter = None


def write(trt: ModuleType, loaded: Loaded, out: Path, *, refittable: bool) -> None:
    """Write an engine with its weights; `refittable` keeps it one that takes others, where the library can say so."""
    config: Any = loaded.engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    loaded.require(not config.get_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS), "write the engine with its weights")
    # Since 10.14, and needed from then on.
    if refittable and hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):
        config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    plan = loaded.not_none(loaded.engine.serialize_with_config(config), "write the engine")
    out.write_bytes(plan)


def _errors(parser: Any) -> list[str]:
    """The parser's errors in its own words, with the node they are about."""
    found = []
    for error in (parser.get_error(index) for index in range(parser.num_errors)):
        where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
        found.append(f"{where}{error.code().name.lower().replace('_', ' ')}: {' '.join(error.desc().split())}")
    return found


def _absent(wanted: list[str], source: Path) -> set[str]:
    """Weights of the engine that a file does not have by name; none where the file cannot be read."""
    try:
        graph = onnx.load(source, load_external_data=False).graph
    except Exception:  # the parser's words say it already
        return set()
    return set(wanted) - {tensor.name for tensor in graph.initializer} - {o for node in graph.node for o in node.output}
