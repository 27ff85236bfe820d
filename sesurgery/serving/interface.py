"""A run's interface, stored beside it: how an image becomes the network's input, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sesurgery.artifacts import mistake, read_small, write_text
from sesurgery.diagnostics import fail
from sesurgery.spec import Spec
from sesurgery.training.data import data_of
from sesurgery.training.data.base import Data
from sesurgery.training.preprocessing import Preprocessing
from sesurgery.workspace import EngineManifest, run_folder

FILE = "interface.json"


@dataclass(frozen=True)
class Interface:
    """The interface for one data set and input size; `preprocessing` is None if the data set has no image files."""

    dataset: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None


_ADAPTER: TypeAdapter[Interface] = TypeAdapter(Interface)


def write(run: Path, interface: Interface) -> None:
    """Write it into a run's folder."""
    write_text(run / FILE, _ADAPTER.dump_json(interface, indent=2).decode() + "\n")


def write_for(run: Path, spec: Spec, data: Data | None = None) -> None:
    """Write that of a run's spec beside the run, for users who have only an engine; `data` is the spec's, if loaded."""
    chosen = spec.train.data
    classes = (data or data_of(spec)).classes
    write(run, Interface(chosen.name, classes, chosen.options.preprocessing(spec.input.shape)))


def read(run: Path) -> Interface:
    """The interface of a run; raises SE402 if it is not there and SE401 if it is something else."""
    path = run / FILE
    if not path.is_file():
        text = f"{path.as_posix()} is not there, and it has the preprocessing and the class names"
        raise fail("SE402", text, f"write it with: `sesurgery build-engine {run.as_posix()}`")
    try:
        return _ADAPTER.validate_json(read_small(path))
    except ValidationError as error:
        text = f"{path.as_posix()} is not what was written: {mistake(error)}"
        raise fail("SE401", text, "build the engine again") from error
    except (OSError, ValueError) as error:
        raise fail("SE401", f"{path.as_posix()} cannot be read: {error}", "build the engine again") from error


def of(engine: Path, manifest: EngineManifest) -> Interface:
    """The interface of an engine's run; raises SE402 if it came from no run."""
    folder = run_folder(engine, manifest)
    if folder is None:
        text = f"{engine} was built from an ONNX file that came from no run: its classes and its input are not known"
        raise fail("SE402", text, "build the engine from a run")
    return read(folder)
