"""Loading and saving ONNX files: the only place that does, so that what goes wrong with files is put right once."""

from __future__ import annotations

from pathlib import Path

import onnx

from sesurgery.artifacts import writing
from sesurgery.diagnostics import SesurgeryError, clipped, fail, first_line
from sesurgery.onnxgraph import external_data as onnx_data
from sesurgery.onnxgraph.repair import decode_names, repaired
from sesurgery.onnxgraph.tensor_data import require_whole
from sesurgery.paths import inside

# One protobuf message holds at most 2 GiB; above that the weights stand in a file beside it.
LIMIT = 2 * 1024**3 - 1
# From this IR version on a weight need not be listed among the inputs.
FREE_WEIGHTS = 4


def load(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """A model that the checker accepts or ONNX Runtime runs, external data read from its own folder.

    What is stored beside the nodes and keeps the checker from accepting it (stale shapes, doubled keys) is put right.
    Raises SE602 for what neither takes.

    Without `weights` those in other files stay there: the model refers to them, and `save` copies them.
    """
    if not path.is_file():
        raise fail("SE402", f"{path} is not there", "export it first: `sesurgery export`")
    try:
        model = onnx.load(path, load_external_data=False)
        decode_names(model)
        outside(model, path)
        onnx_data.complete(model)
        if weights:
            onnx.load_external_data_for_model(model, str(path.parent))
        else:
            onnx_data.refer(model, path.parent)
        require_whole(model)
        mended = [_freed(model), _opened(model)]
        # A file whose data lie outside cannot be judged by its path alone: shapes may be among them.
        whole = onnx_data.size(model) <= LIMIT and not onnx_data.refers(model)
        try:
            # Names of domains, shapes and types, and that nothing is read before it is made.
            onnx.checker.check_model(model if whole or any(mended) else path, full_check=True)
        except Exception:
            return _what_runs(model, path)
    except SesurgeryError:
        raise
    except Exception as error:
        why = clipped(first_line(error), 400)
        raise fail("SE602", f"{path} is not a valid ONNX file: {why}", "export it again") from error
    return model


def _what_runs(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A model that the checker refused, put right where that is enough, else where ONNX Runtime runs it."""
    made = repaired(model)
    try:
        onnx.checker.check_model(made, full_check=True)
    except Exception:
        # Weights in other files are found from the file's own folder.
        if not runs(path if onnx_data.size(made) > made.ByteSize() or made.ByteSize() > LIMIT else made):
            raise
    return made


def runs(model: onnx.ModelProto | Path) -> bool:
    """Whether ONNX Runtime takes a model: the judge of what is a valid file where the checker refuses one."""
    from sesurgery.onnxgraph.sessions import session

    try:
        session(model, optimised=False)
    except Exception:  # its exceptions share no base class but Exception
        return False
    return True


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, atomically, once the checker accepts it or ONNX Runtime takes it; raises SE602 otherwise.

    It is one file up to 2 GiB; above, the weights stand beside it in NAME.onnx.data.
    """
    if onnx_data.size(model) > LIMIT:
        _save_large(model, path)
        return
    model = onnx_data.inlined(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        if not runs(model):
            raise fail("SE602", f"the model is not valid and was not written: {error}") from error
    before = beside(path)
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    _forget(before)


def check(path: Path) -> None:
    """Raise SE602 where the checker refuses a file that was just written."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        raise fail("SE602", f"the model is not valid and was not written: {error}") from error


def move(written: Path, path: Path) -> None:
    """Give a file, and its weights where they stand beside it, another folder on the same disk; the name stays."""
    if not beside(written):
        before = beside(path)
        written.replace(path)
        _forget(before)
        return
    # The weights come first: a file whose weights are not there yet must never be seen.
    data_path(written).replace(data_path(path))
    written.replace(path)


def beside(path: Path) -> tuple[Path, ...]:
    """The file with the weights of a file that `save` wrote, where they are not in it.

    Another file of that name is somebody else's: only what the file itself refers to belongs to it.
    """
    data = data_path(path)
    if not data.is_file() or not path.is_file():
        return ()
    try:
        return (data,) if data in files(path) else ()
    except SesurgeryError:
        return ()


def files(path: Path) -> tuple[Path, ...]:
    """A file, and the files that hold its weights; raises SE602 for what is no ONNX file, SE408 as `outside` does."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise fail("SE602", f"{path} is not a valid ONNX file: {text[0] if text else type(error).__name__}") from error
    return (path, *outside(model, path).values())


def outside(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Files that hold weights of the model that was read from `path`, by the names that it has for them.

    Raises SE408 where one lies outside the model's own folder, whatever links and dots lead there.
    """
    found: dict[str, Path] = {}
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if location not in found:
                found[location] = inside(path.parent, location, f"the data of {tensor.name!r} in {path.as_posix()}")
    return found


def size(path: Path) -> int:
    """Bytes of a file and of the files that hold its weights."""
    return sum(file.stat().st_size for file in set(files(path)) if file.is_file())


def data_path(path: Path) -> Path:
    """Where the weights of a file stand that is too large for one: `x.onnx` -> `x.onnx.data`."""
    return path.parent / f"{path.name}.data"


def _freed(model: onnx.ModelProto) -> bool:
    """Read a file by the rules of IR version 4 where it was written by them under an older number.

    Before 4 every weight is an input as well. onnxslim adds weights to such files that are none, which runtimes take
    and the checker does not.
    """
    named = {value.name for value in model.graph.input}
    if model.ir_version >= FREE_WEIGHTS or all(tensor.name in named for tensor in model.graph.initializer):
        return False
    model.ir_version = FREE_WEIGHTS
    return True


def _opened(model: onnx.ModelProto) -> bool:
    """Read a size below zero as an open one: some exporters write -1 there, which runtimes take for that."""
    graph = model.graph
    sizes = [
        dim
        for value in (*graph.input, *graph.output, *graph.value_info)
        for dim in value.type.tensor_type.shape.dim
        if dim.HasField("dim_value") and dim.dim_value < 0
    ]
    for dim in sizes:
        dim.ClearField("dim_value")
    return bool(sizes)


def _save_large(model: onnx.ModelProto, path: Path) -> None:
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    data = data_path(path)
    with writing(path) as temporary:
        # The weights come first: a file whose weights are not there yet must never be seen.
        with writing(data) as weights:
            with weights.open("wb") as stream:
                onnx_data.write(outside, stream, weights.name)
            temporary.write_bytes(outside.SerializeToString())
            try:
                onnx.checker.check_model(temporary, full_check=True)
            except Exception as error:
                raise fail("SE602", f"the model is not valid and was not written: {error}") from error
        onnx_data.relocate(outside, data.name)
        temporary.write_bytes(outside.SerializeToString())


def _forget(before: tuple[Path, ...]) -> None:
    """Take away the weights of the larger file that lay here before."""
    for path in before:
        path.unlink(missing_ok=True)
