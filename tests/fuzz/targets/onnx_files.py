"""ONNX files, changed in structure and in bits, through inspect, apply, remove and lower.

ONNX Runtime is the judge: where it runs the file that went in, it runs the one that came out, and what `lower` writes
answers the same.
"""

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from tests.fuzz.oracle import BadError, Outcome, cli
from tests.fuzz.targets.graphs import net
from tests.fuzz.targets.networks import exported
from tests.fuzz.values import flipped

APART = {"float32": 1e-3, "float64": 1e-3, "float16": 3e-2}
BACKENDS = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
RULES = {
    "apply": "{insert: {block: se, min_width: 2}, at: conv}",
    "remove": "{remove: any}",
    "replace": "{replace: any, insert: eca}",
}


def any_model(rng: random.Random) -> onnx.ModelProto:
    """A random network, or one as exporters write it."""
    return net(rng) if rng.random() < 0.6 else exported(rng)


def odd(rng: random.Random, folder: Path) -> Outcome:
    """Valid networks as they come."""
    model = net(rng) if rng.random() < 0.9 else exported(rng)
    return _judged(_written(model, rng, folder), rng, folder, _shape(model))


def structure(rng: random.Random, folder: Path) -> Outcome:
    model = any_model(rng)
    shape = _shape(model)
    for _ in range(rng.choice((1, 1, 2, 3))):
        changed(model, rng)
    return _judged(_written(model, rng, folder), rng, folder, shape)


def bits(rng: random.Random, folder: Path) -> Outcome:
    path = folder / "net.onnx"
    model = any_model(rng)
    path.write_bytes(flipped(model.SerializeToString(), rng))
    return _judged(path, rng, folder, _shape(model))


def _shape(model: onnx.ModelProto) -> tuple[int, ...]:
    sizes = [dim.dim_value or 8 for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    # Keras and tf2onnx put the channels last: an image has few of them.
    return (sizes[2], *sizes[:2]) if sizes[2] <= 4 < sizes[0] else tuple(sizes)


def _written(model: onnx.ModelProto, rng: random.Random, folder: Path) -> Path:
    path = folder / "net.onnx"
    data = rng.random() < 0.15 and bool(model.graph.initializer)
    if data:
        onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            if rng.random() < 0.5:
                kept = [entry for entry in tensor.external_data if entry.key != "length"]
                del tensor.external_data[:]
                tensor.external_data.extend(kept)
    path.write_bytes(model.SerializeToString())
    return path


def changed(model: onnx.ModelProto, rng: random.Random) -> None:
    """One change of its structure."""
    graph = model.graph
    node = rng.choice(graph.node)
    tensor = rng.choice(graph.initializer) if graph.initializer else TensorProto()
    value = rng.choice([*graph.input, *graph.output])
    names = [name for other in graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
    how = rng.randrange(16)
    if how == 0 and len(graph.node) > 1:
        graph.node.remove(node)
    elif how == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif how == 2:
        node.op_type = rng.choice([other.op_type for other in graph.node] + ["Nope", "If", "Shape", "Softmax", ""])
    elif how == 3 and node.attribute:
        item = rng.choice(node.attribute)
        item.i = rng.choice((0, -1, 1, 7, 2**40))
        item.ints[:] = [rng.choice((0, -1, 1, 3, 2**40)) for _ in item.ints]
    elif how == 4:
        tensor.dims[:] = rng.choice(([], [0], [-1], [2**40], [1], list(tensor.dims)[::-1], [*tensor.dims, 1]))
    elif how == 5:
        tensor.data_type = rng.choice((1, 2, 7, 8, 10, 11, 16, 17, 99))
    elif how in (6, 7) and value.type.tensor_type.shape.dim:
        dim = rng.choice(value.type.tensor_type.shape.dim)
        dim.dim_value = rng.choice((-1, 0, 1, 5, 2**31, 2**62))
    elif how == 8:
        value.type.tensor_type.elem_type = rng.choice((0, 1, 7, 8, 10, 11, 16))
    elif how == 9:
        element = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        graph.input.append(onnx.helper.make_value_info("many", onnx.helper.make_sequence_type_proto(element)))
    elif how == 10 and node.output:
        node.output[0] = rng.choice(names)
    elif how == 11:
        model.opset_import[0].version = rng.choice((0, 1, 7, 9, 12, 15, 22, 30, -1))
    elif how == 12:
        graph.value_info.append(
            onnx.helper.make_tensor_value_info(rng.choice(names), TensorProto.FLOAT, rng.choice(([1], [-1, 3], None)))
        )
    elif how == 13:
        graph.node.append(node)
    elif how == 14:
        model.ir_version = rng.choice((0, 3, 4, 99))
    elif tensor.raw_data:
        tensor.raw_data = flipped(tensor.raw_data, rng)


def _judged(source: Path, rng: random.Random, folder: Path, shape: tuple[int, ...]) -> Outcome:
    target = folder / "out.onnx"
    verb = rng.choice(("inspect", "lower", "lower", "lower", *RULES))
    before = source.read_bytes()
    if verb == "inspect":
        outcome = cli("inspect", source, "--shape", "x".join(map(str, shape)))
    elif verb == "lower":
        options = ["--explain"] if rng.random() < 0.3 else []
        options += ["--no-verify"] if rng.random() < 0.3 else []
        outcome = cli("lower", source, "-o", target, "--for", rng.choice(BACKENDS), *options)
    else:
        spec = folder / "net.yaml"
        spec.write_text(
            f"version: 1\nmodel: {{source: onnx, name: net.onnx}}\ninput: {{shape: {list(shape)}}}\n"
            f"surgery: [{RULES[verb]}]\n"
        )
        outcome = cli("apply", spec, "-o", target)
    if source.read_bytes() != before:
        raise BadError(f"{verb} changed the file that it read")
    if outcome.kind != "done" and target.exists():
        raise BadError(f"{verb} wrote a file and failed: {outcome.text}")
    if target.exists():
        _stands_up(source, target, same=verb == "lower")
    return outcome


def _stands_up(source: Path, target: Path, *, same: bool) -> None:
    try:
        session = _session(source)
        feeds = _feeds(session)
        expected = session.run(None, feeds)
    except Exception:
        return  # nothing is known of a file that does not run
    if not all(array.size for array in feeds.values()):
        return  # nor of one that takes no sample: its batch of 0 is opened, and other sizes are right
    try:
        # A file that ONNX Runtime takes and the checker does not is changed as it is.
        if _checked(source):
            onnx.checker.check_model(str(target), full_check=True)
        found = _session(target).run(None, feeds)
    except Exception as error:
        raise BadError(f"what was written does not run, the source does: {str(error).splitlines()[0]}") from error
    for one, other in zip(expected, found, strict=True):
        if not isinstance(one, np.ndarray) or one.dtype.kind != "f":
            continue
        if one.shape != other.shape or one.dtype != other.dtype:
            raise BadError(f"{one.dtype}{one.shape} became {other.dtype}{other.shape}")
        known = np.isfinite(one)
        if not same or not known.all() or not one.size:
            continue
        gap = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
        if not gap <= APART[str(one.dtype)] * max(1e-6, float(np.abs(one.astype(np.float64)).max())):
            raise BadError(f"outputs differ by {gap:.3g}, the largest is {float(np.abs(one).max()):.3g}")


def _checked(path: Path) -> bool:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception:
        return False
    return True


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _feeds(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    random_values = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    feeds = {}
    for value in session.get_inputs():
        shape = [
            size if isinstance(size, int) and size >= 0 else 8 if axis else 2 for axis, size in enumerate(value.shape)
        ]
        if np.prod(shape, dtype=object) > 1_000_000:
            raise ValueError("too large to be fed")
        feeds[value.name] = random_values.normal(size=shape).astype(kinds[value.type])
    return feeds


TARGETS = {"onnx-odd": odd, "onnx-structure": structure, "onnx-bits": bits}
