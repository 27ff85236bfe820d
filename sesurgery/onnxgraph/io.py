"""Loading and saving ONNX files. No other module does either, so problems of files are handled in one place."""

from __future__ import annotations

from pathlib import Path

import onnx

from sesurgery.artifacts import writing
from sesurgery.diagnostics import SesurgeryError, clipped, fail, first_line
from sesurgery.onnxgraph import external_data as onnx_data
from sesurgery.onnxgraph.checking import rejection, with_computed_outputs
from sesurgery.onnxgraph.repair import decode_names, repaired
from sesurgery.onnxgraph.tensor_data import require_whole
from sesurgery.paths import inside

# One protobuf message holds at most 2 GiB; the weights of larger models are in a file beside it.
LIMIT = 2 * 1024**3 - 1
# From this IR version on a weight need not be listed among the inputs.
FREE_WEIGHTS = 4


def load(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Load a model that the checker accepts or ONNX Runtime runs; external data are read from its own folder.

    Metadata that the checker rejects (stale shapes, duplicate keys) is repaired. Raises SE602 if neither accepts the
    file. Without `weights`, external weights are not loaded: the model refers to them, and `save` copies them.
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
        # The external data may contain shapes, so the checker needs more than the path.
        whole = onnx_data.size(model) <= LIMIT and not onnx_data.refers(model)
        try:
            # Checks domains, shapes and types, and that every value is written before it is read.
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
    """A model that the checker rejected: repaired if that is enough, or as it is if ONNX Runtime runs it."""
    made = repaired(model)
    try:
        onnx.checker.check_model(made, full_check=True)
    except Exception:
        # Weights in other files are found from the file's own folder.
        if not runs(path if onnx_data.size(made) > made.ByteSize() or made.ByteSize() > LIMIT else made):
            raise
    return made


def runs(model: onnx.ModelProto | Path) -> bool:
    """Whether ONNX Runtime loads a model; that counts as valid if the checker rejects it."""
    from sesurgery.onnxgraph.sessions import session

    try:
        session(model, optimised=False)
    except Exception:  # its exceptions share no base class but Exception
        return False
    return True


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model atomically if the checker accepts it or ONNX Runtime loads it; raises SE602 otherwise.

    Sizes of outputs that the checker rejects are replaced by what is computed. It is one file up to 2 GiB; the weights
    of larger models are beside it in NAME.onnx.data.
    """
    if onnx_data.size(model) > LIMIT:
        _save_large(model, path)
        return
    model = onnx_data.inlined(model)
    if (why := rejection(model)) is not None:
        if (mended := with_computed_outputs(model)) is not None:
            model = mended
        elif not runs(model):
            raise fail("SE602", f"the model is not valid and was not written: {why}")
    before = beside(path)
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    _forget(before)


def check(path: Path) -> None:
    """Raise SE602 if the checker refuses a file that was just written."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        raise fail("SE602", f"the model is not valid and was not written: {error}") from error


def move(written: Path, path: Path) -> None:
    """Move a file, and the file with its weights if there is one, to another folder on the same disk."""
    if not beside(written):
        before = beside(path)
        written.replace(path)
        _forget(before)
        return
    # The weights come first: a file whose weights are not there yet must never be seen.
    data_path(written).replace(data_path(path))
    written.replace(path)


def beside(path: Path) -> tuple[Path, ...]:
    """The separate file with the weights of a file that `save` wrote, if there is one.

    A file of that name belongs to the model only if the model refers to it.
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
        raise fail("SE602", f"{path} is not a valid ONNX file: {first_line(error)}") from error
    return (path, *outside(model, path).values())


def outside(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Files with weights of the model that was read from `path`, by the names in the model.

    Raises SE408 if one lies outside the model's own folder, whatever links and dots lead there.
    """
    found: dict[str, Path] = {}
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if location not in found:
                found[location] = inside(path.parent, location, f"the data of {tensor.name!r} in {path.as_posix()}")
    return found


def size(path: Path) -> int:
    """Bytes of a file and of the files with its weights."""
    return sum(file.stat().st_size for file in set(files(path)) if file.is_file())


def data_path(path: Path) -> Path:
    """The path for the weights of a file that is too large: `x.onnx` -> `x.onnx.data`."""
    return path.parent / f"{path.name}.data"


def _freed(model: onnx.ModelProto) -> bool:
    """Treat a file with an older IR version as version 4 if it follows those rules.

    Before version 4 every weight is also an input. onnxslim adds weights that are not inputs to such files, which
    runtimes accept and the checker rejects.
    """
    named = {value.name for value in model.graph.input}
    if model.ir_version >= FREE_WEIGHTS or all(tensor.name in named for tensor in model.graph.initializer):
        return False
    model.ir_version = FREE_WEIGHTS
    return True


def _opened(model: onnx.ModelProto) -> bool:
    """Treat a negative size as dynamic: some exporters write -1, and runtimes accept it."""
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
    """Delete the weights of a larger file that was here before."""
    for path in before:
        path.unlink(missing_ok=True)
